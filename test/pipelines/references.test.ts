import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sizeOf, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { readPictureMetadata, writePicture } from "../../src/pictures/file-node.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import type { ImageModel } from "../../src/pipelines/image-model.ts";
import { openModel } from "../../src/pipelines/open/open-node.ts";
import { finished, imagePipeline } from "../../src/pipelines/pipeline.ts";
import { fittedReferences } from "../../src/pipelines/references.ts";
import { type GenerateRequest, generateRequestSchema } from "../../src/pipelines/settings.ts";
import { patchwise } from "../support/cli.ts";
import { smallModels, writeSmallFolder } from "../support/flux-folders.ts";
import { watchedBackend } from "../support/watched-backend.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-references-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const at = (name: string) => path.join(scratch, name);
let klein: ImageModel;
let zImage: ImageModel;
beforeAll(async () => {
  await writeSmallFolder(at("klein"), smallModels.klein);
  await writeSmallFolder(at("zImage"), smallModels.zImage);
  klein = await openModel(at("klein"), { promptTokens: 16 });
  zImage = await openModel(at("zImage"), { promptTokens: 16 });
});
afterAll(() => Promise.all([klein.close(), zImage.close()]));

function picture(width: number, height: number, seed = 1): Picture {
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0; i < pixels.length; i++) pixels[i] = (i * i * seed) % 251;
  return { width, height, channels: 3, pixels };
}

async function draw(more: Partial<GenerateRequest>) {
  const { backend, asked } = watchedBackend();
  const pipeline = imagePipeline({ ...klein, close: async () => {} }, backend);
  const request = { prompt: "a red cat", seed: 3, width: 32, height: 48, steps: 1, ...more };
  const pictures = await finished(pipeline.generate(request));
  await pipeline.dispose();
  return {
    pictures,
    networks: asked.filter(({ x }) => x),
    encoders: asked.filter(({ images }) => images),
  };
}

describe("reference pictures", () => {
  // 64×64 pixels are 16×16 places of this model: its autoencoder halves sides once, and packs 2×2.
  const [first, second] = [picture(66, 70), picture(80, 64, 2)];

  it("are encoded once, cropped around their centre, and given to every row", async () => {
    const { networks, encoders } = await draw({
      references: [first, second],
      count: 2,
      guidance: 4,
    });
    expect(encoders.map(({ images }) => images!.shape)).toEqual([
      [1, 3, 68, 64],
      [1, 3, 64, 80],
    ]);
    const corner = 3 * (66 + 1);
    expect(toNumbers(encoders[0]!["images"]!)[0]).toBeCloseTo(first.pixels[corner]! / 127.5 - 1, 6);
    const [asked] = networks;
    expect(asked!["reference0"]!.shape).toEqual([4, 32, 17, 16]);
    expect(asked!["reference1"]!.shape).toEqual([4, 32, 16, 20]);
    const values = toNumbers(asked!["reference0"]!);
    const row = sizeOf([32, 17, 16]);
    expect(values.slice(3 * row)).toEqual(values.slice(0, row));
  });

  it("change the picture, and so does their order", async () => {
    const drawings = [
      await draw({ references: [first] }),
      await draw({ references: [first, second] }),
      await draw({ references: [second, first] }),
    ];
    const seen = drawings.map(({ pictures: [drawn] }) =>
      Buffer.from(drawn!.pixels).toString("hex"),
    );
    expect(new Set(seen).size).toBe(3);
  });

  it("give the size of the picture unless one is asked for", () => {
    const pipeline = imagePipeline({ ...klein, close: async () => {} }, watchedBackend().backend);
    const size = (more: object) => {
      const { width, height } = pipeline.settings({ prompt: "a cat", ...more });
      return [width, height];
    };
    expect(size({ references: [first, second] })).toEqual([64, 68]);
    expect(size({ references: [first], width: 128 })).toEqual([128, 68]);
    // 2048×1024 is twice of what is drawn at most.
    expect(size({ references: [picture(2048, 1024)] })).toEqual([1448, 724]);
  });

  it("are made smaller where there are several, as FLUX.2 does", () => {
    const [large, small] = fittedReferences([picture(1600, 1000), picture(70, 64)], klein);
    const scale = Math.sqrt(1024 ** 2 / 1_600_000);
    expect(large!.width).toBe(Math.floor((1600 * scale) / 4) * 4);
    expect(large!.height).toBe(Math.floor((1000 * scale) / 4) * 4);
    expect(small).toMatchObject({ width: 68, height: 64 });
    expect(fittedReferences([picture(1600, 1000)], klein)[0]).toMatchObject({ width: 1600 });
  });

  it.each<[string, () => Partial<GenerateRequest>, string]>([
    [
      "too small",
      () => ({ references: [picture(64, 63)] }),
      "Reference picture 1 has 64×63 pixels",
    ],
    [
      "too narrow",
      () => ({ references: [first, picture(64, 640)] }),
      "one at most 8 times as long",
    ],
    ["none", () => ({ references: [] }), "references must be 1 to 10 pictures"],
    [
      "too many",
      () => ({ references: new Array<Picture>(11).fill(first) }),
      "references must be 1 to 10 pictures",
    ],
  ])("are refused: %s", async (_, more, message) => {
    await expect(draw(more())).rejects.toThrow(message);
  });

  it("are refused by a model that takes none", () => {
    const pipeline = imagePipeline({ ...zImage, close: async () => {} }, watchedBackend().backend);
    expect(() => pipeline.settings({ prompt: "a cat", references: [first] })).toThrow(
      "takes no reference pictures; leave references out, or draw with a model of FLUX.2.",
    );
  });

  it("are base64 in the JSON schema", () => {
    expect(generateRequestSchema()).toMatchObject({
      properties: { references: { type: "array", items: { type: "string" } } },
    });
  });
});

describe("patchwise generate --reference", () => {
  it("takes files, and says when a recorded picture needs them again", async () => {
    await writePicture(at("a.png"), picture(64, 64));
    await writePicture(at("b.png"), picture(80, 64, 2));
    const model = ["--model", at("klein"), "--prompt-tokens", "16", "--steps", "1"];
    const drawing = ["generate", "a cat", ...model, "--seed", "3", "--out", at("out.png")];
    const drawn = patchwise([...drawing, "--reference", at("a.png"), at("b.png"), "--json"]);
    expect(drawn).toMatchObject({ code: 0 });
    expect(JSON.parse(drawn.out)).toMatchObject({ referred: 2, width: 64, height: 64 });
    expect(await readPictureMetadata(at("out.png"))).toMatchObject({ referred: 2 });
    const again = patchwise(["generate", ...model, "--from-image", at("out.png")]);
    expect(again.code).toBe(2);
    expect(again.err).toContain("give them as --reference.");
  });
});
