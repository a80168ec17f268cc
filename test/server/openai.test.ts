/** The official client of OpenAI's API against a running server. */
import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import OpenAI, { toFile } from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { readPicture } from "../../src/pictures/decode-node.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import { toPng } from "../../src/pictures/png.ts";
import type { ErrorBody, Job } from "../../src/server/wire.ts";
import { smallModels, writeSmallFolder } from "../support/flux-folders.ts";
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

describe("reference pictures", () => {
  const folder = mkdtempSync(path.join(tmpdir(), "patchwise-served-klein-"));
  let other: TestServer;
  beforeAll(async () => {
    await writeSmallFolder(path.join(folder, "klein"), smallModels.klein);
    other = await testServer({ models: [path.join(folder, "klein"), "emoji"] });
  });
  afterAll(async () => {
    await other.close();
    await rm(folder, { recursive: true, force: true });
  });
  const png = async (value: number) => {
    const pixels = new Uint8Array(64 * 64 * 3).fill(value);
    return Buffer.from(await toPng({ width: 64, height: 64, channels: 3, pixels }));
  };
  const settings = { prompt: "a cat", seed: 3, steps: 1, width: 32, height: 32 };

  it("are seen by models that take them, in jobs as in edits and alone", async () => {
    const both = [await png(40), await png(200)];
    const references = both.map((each) => each.toString("base64"));
    const draw = async (given: object) => {
      const accepted = await other.post("/api/jobs", { ...settings, ...given });
      const job = await other.ended(((await accepted.json()) as Job).id);
      expect(job).toMatchObject({ state: "succeeded" });
      const bytes = await (await fetch(other.url + job.pictures[0]!.url)).arrayBuffer();
      return { job, pixels: (await readPicture(new Uint8Array(bytes))).pixels };
    };
    const { job, pixels } = await draw({ references });
    expect(job.settings.referred).toBe(2);
    expect((await draw({ references: references.slice(1) })).pixels).not.toEqual(pixels);

    const pipeline = await openPipeline(path.join(folder, "klein"));
    const pictures = await Promise.all(both.map((each) => readPicture(each)));
    const [alone] = await finished(pipeline.generate({ ...settings, references: pictures }));
    await pipeline.dispose();
    expect(pixels).toEqual(alone!.pixels);

    const klein = new OpenAI({ baseURL: `${other.url}/v1`, apiKey: "none", maxRetries: 0 });
    const files = both.map((each, i) => toFile(each, `${i}.png`, { type: "image/png" }));
    const { data } = await klein.images.edit({
      image: await Promise.all(files),
      prompt: settings.prompt,
      ...(more({ seed: 3, steps: 1 }) as object),
      size: "32x32",
    });
    expect((await decoded(data![0]!.b64_json!)).pixels).toEqual(pixels);
  }, 180_000);

  it("are refused in a sentence where they are not taken, are too many or none", async () => {
    const reference = (await png(40)).toString("base64");
    const cases: readonly (readonly [fields: object, message: RegExp])[] = [
      [{ model: "emoji", references: [reference] }, /emoji takes no reference pictures/],
      [{ references: [] }, /references must be a list/],
      [{ references: reference }, /references must be a list/],
      [{ references: ["?"] }, /references\.0 must be a picture file in base64/],
      [{ references: [null] }, /references\.0 must be a picture file in base64/],
      [{ references: ["AAAA"] }, /references\.0 cannot be read as a picture/],
      [{ references: new Array(11).fill(reference) }, /11 reference pictures, .* at most 10/],
    ];
    for (const [fields, message] of cases) {
      const response = await other.post("/api/jobs", { ...settings, ...fields });
      const { error } = (await response.json()) as ErrorBody;
      expect([response.status, error.message]).toEqual([400, expect.stringMatching(message)]);
    }
    const generated = await other.post("/v1/images/generations", {
      ...settings,
      references: [reference],
    });
    expect(generated.status).toBe(400);
    expect(await generated.text()).toContain("references is a field of /v1/images/edits");
    const form = new FormData();
    form.set("prompt", "a cat");
    form.set("model", "emoji");
    for (const name of ["a.png", "b.png"]) form.append("image[]", new Blob([await png(4)]), name);
    const edited = await fetch(`${other.url}/v1/images/edits`, { method: "POST", body: form });
    expect([edited.status, await edited.text()]).toEqual([
      400,
      expect.stringContaining("There are 2 files as image, but this edit takes one") as string,
    ]);
  });
});
