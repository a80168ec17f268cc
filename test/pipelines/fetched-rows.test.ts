import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { openDiffusersFolder } from "../../src/pipelines/open/diffusers.ts";
import { openModel } from "../../src/pipelines/open/open-node.ts";
import type { ImageModel } from "../../src/pipelines/image-model.ts";
import { finished, imagePipeline } from "../../src/pipelines/pipeline.ts";
import { urlFolder } from "../../src/weights/sources/folder-url.ts";
import { type FileServer, serveFiles } from "../support/file-server.ts";
import { smallModels, withVocabulary, writeSmallFolder } from "../support/flux-folders.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-rows-"));
let server: FileServer;

beforeAll(async () => {
  server = await serveFiles(scratch);
});
afterAll(async () => {
  await server.close();
  rmSync(scratch, { recursive: true, force: true });
});

async function drawn(model: ImageModel): Promise<Uint8Array> {
  const pipeline = imagePipeline(model, nodeBackend("cpu"));
  const asked = { prompt: "a red cat", seed: 3, width: 32, height: 32, steps: 1 };
  const [picture] = await finished(pipeline.generate(asked));
  await pipeline.dispose();
  return picture!.pixels;
}

it.each([
  // T5 and CLIP, Qwen3, and T5 with a mask; the width of each table.
  ["schnell", { text_encoder: 64, text_encoder_2: 32 }],
  ["klein", { text_encoder: 8 }],
  ["miniT2I", { text_encoder: 32 }],
] as const)(
  "of the tables of tokens of %s, only the rows of the prompt are fetched",
  async (name, widths) => {
    const vocabulary = 20_000;
    await writeSmallFolder(path.join(scratch, name), withVocabulary(smallModels[name], vocabulary));
    // Files of any size are read by ranges here, as those above 256 MiB are.
    const folder = urlFolder(`${server.address}${name}/`, {}, 0);
    const pixels = await drawn(await openDiffusersFolder(folder, {}));
    expect(pixels).toEqual(await drawn(await openModel(path.join(scratch, name))));
    for (const [encoder, width] of Object.entries(widths)) {
      const file = `${name}/${encoder}/model.safetensors`;
      const whole = statSync(path.join(scratch, file)).size;
      const table = 4 * vocabulary * width;
      const rest = whole - table;
      const got = server.sent.get(file)!;
      // The rest is read once at most, and of the table a row for each token of the prompt, of its template and of padding.
      expect(got - rest).toBeLessThan(0.05 * table);
    }
  },
);
