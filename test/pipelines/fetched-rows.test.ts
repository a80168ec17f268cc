import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { openDiffusersFolder } from "../../src/pipelines/open/diffusers.ts";
import { openModel } from "../../src/pipelines/open/open-node.ts";
import type { ImageModel } from "../../src/pipelines/image-model.ts";
import { finished, imagePipeline } from "../../src/pipelines/pipeline.ts";
import { urlFolder } from "../../src/weights/sources/folder-url.ts";
import { smallModels, withVocabulary, writeSmallFolder } from "../support/flux-folders.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-rows-"));
/** Bytes of each file that were sent, by its path in the served folder. */
const sent = new Map<string, number>();

/** A server of files that answers ranges, as any static one does. */
const server = createServer((request, response) => {
  const file = decodeURIComponent(request.url!.slice(1));
  const target = path.join(scratch, file);
  if (!statSync(target, { throwIfNoEntry: false })?.isFile()) {
    response.writeHead(404).end();
    return;
  }
  const content = readFileSync(target);
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
  const part = first === undefined ? content : content.subarray(Number(first), Number(last) + 1);
  response.writeHead(first === undefined ? 200 : 206, {
    "content-length": part.length,
    ...(first !== undefined && { "content-range": `bytes ${first}-${last}/${content.length}` }),
  });
  if (request.method === "HEAD") {
    response.end();
    return;
  }
  sent.set(file, (sent.get(file) ?? 0) + part.length);
  response.end(part);
});

beforeAll(() => new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve)));
afterAll(async () => {
  await new Promise((resolve) => server.close(resolve));
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
    const { port } = server.address() as AddressInfo;
    // Files of any size are read by ranges here, as those above 256 MiB are.
    const folder = urlFolder(`http://127.0.0.1:${port}/${name}/`, {}, 0);
    const pixels = await drawn(await openDiffusersFolder(folder, {}));
    expect(pixels).toEqual(await drawn(await openModel(path.join(scratch, name))));
    for (const [encoder, width] of Object.entries(widths)) {
      const file = `${name}/${encoder}/model.safetensors`;
      const whole = statSync(path.join(scratch, file)).size;
      const table = 4 * vocabulary * width;
      const rest = whole - table;
      const got = sent.get(file)!;
      // The rest is read once at most, and of the table a row for each token of the prompt, of its template and of padding.
      expect(got - rest).toBeLessThan(0.05 * table);
    }
  },
);
