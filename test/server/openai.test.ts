/** The official client of OpenAI's API against a running server. */
import OpenAI, { toFile } from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { readPicture } from "../../src/pictures/decode-node.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import { toPng } from "../../src/pictures/png.ts";
import { testServer, type TestServer } from "./support.ts";

let server: TestServer;
let client: OpenAI;

beforeAll(async () => {
  server = await testServer();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
});
afterAll(() => server.close());

/** Fields beside those of the client's types. */
const more = (fields: object) => fields as Partial<OpenAI.ImageGenerateParamsNonStreaming>;
const decoded = (base64: string) => readPicture(Buffer.from(base64, "base64"));

describe("OpenAI's client", () => {
  it("draws what generate draws, with our settings beside its own", async () => {
    const settings = { steps: 3, seed: 7, guidance: 1.5, sampler: "heun" };
    const { data } = await client.images.generate({
      prompt: "red heart",
      n: 2,
      size: "64x64",
      output_format: "webp",
      ...more({ ...settings, negative_prompt: "blue" }),
    });
    const pipeline = await openPipeline("emoji");
    const alone = await finished(
      pipeline.generate({ ...settings, prompt: "red heart", negativePrompt: "blue", count: 2 }),
    );
    await pipeline.dispose();
    expect(data).toHaveLength(2);
    for (const [i, { b64_json }] of data!.entries()) {
      const { pixels, width, height } = await decoded(b64_json!);
      expect([width, height]).toEqual([64, 64]);
      expect(pixels).toEqual(alone[i]!.pixels);
    }
  });

  it("lists and retrieves models", async () => {
    const { data } = await client.models.list();
    expect(data.map(({ id }) => id)).toEqual(["emoji"]);
    expect(await client.models.retrieve("emoji")).toMatchObject({ id: "emoji", object: "model" });
    await expect(client.models.retrieve("gpt-image-1")).rejects.toMatchObject({ status: 404 });
  });

  it("edits a picture where its mask is transparent, and keeps the rest", async () => {
    const side = 64;
    const pixels = new Uint8Array(side * side * 3).fill(200);
    const image: Picture = { width: side, height: side, channels: 3, pixels };
    const mask = pixels.map((_, i) => (Math.floor(i / 3) % side < side / 2 ? 255 : 0));
    const { data } = await client.images.edit({
      image: await toFile(await toPng(image), "image.png", { type: "image/png" }),
      mask: await toFile(await toPng({ ...image, pixels: mask }), "mask.png", {
        type: "image/png",
      }),
      prompt: "red heart",
      ...(more({ steps: 2, seed: 1 }) as object),
    });
    const drawn = await decoded(data![0]!.b64_json!);
    const at = (x: number) => drawn.pixels[3 * (32 * side + x)];
    expect(at(60)).toBe(200);
    expect(Array.from({ length: 32 }, (_, x) => at(x))).not.toEqual(new Array(32).fill(200));
  });

  it("streams partial pictures and the complete one", async () => {
    const stream = await client.images.generate({
      prompt: "a dog",
      stream: true,
      partial_images: 2,
      ...(more({ steps: 5, seed: 3 }) as object),
    });
    const events = [];
    for await (const event of stream) events.push(event);
    expect(events.map(({ type }) => type)).toEqual([
      "image_generation.partial_image",
      "image_generation.partial_image",
      "image_generation.completed",
    ]);
    const [first, second, last] = await Promise.all(
      events.map(async ({ b64_json }) => (await decoded(b64_json)).pixels),
    );
    expect(first).not.toEqual(second);
    expect(second).not.toEqual(last);
  });

  it("says what is wrong in the client's errors", async () => {
    const asked = (fields: object) => client.images.generate({ prompt: "a dog", ...more(fields) });
    await expect(asked({ model: "../../etc/passwd" })).rejects.toMatchObject({
      status: 404,
      code: "model_not_found",
      message: expect.stringContaining("give one of emoji") as string,
    });
    await expect(asked({ size: "63x63" })).rejects.toMatchObject({ status: 400 });
    await expect(asked({ stepz: 3 })).rejects.toMatchObject({
      message: expect.stringContaining("did you mean steps") as string,
    });
    await expect(asked({ steps: 100_000 })).rejects.toMatchObject({ code: "limit_exceeded" });
    await expect(asked({ quality: "hd" })).rejects.toMatchObject({ param: "quality" });
    await expect(asked({ loras: [{ name: "../secret" }] })).rejects.toMatchObject({ status: 404 });
  });
});
