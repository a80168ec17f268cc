/**
 * Writes MiniT2I-B/16 at full size as ComfyUI's folders of float32 files with made-up numbers (2.4 GB), then opens it and draws 512×512
 * pixels in 4 steps: the time until it is open, the time of each step, and the memory, beside what was announced. The mean flow by
 * default; "small-steps" for the network that takes each step twice, with the text and without.
 *
 *     node scripts/run.mjs scripts/full-size-minit2i.ts FOLDER [mean-flow|small-steps] [float32|int8]
 */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { byteSize, sizeOf } from "../src/engine/arrays/ndarray.ts";
import { UsageError } from "../src/engine/errors.ts";
import { fork, normal, randomKey } from "../src/engine/random/random.ts";
import { networkPresets, traceNetwork } from "../src/models/network.ts";
import { t5EncoderParams, t5EncoderPresets } from "../src/models/text-encoders/t5-encoder.ts";
import type { ParamsRoot } from "../src/nn/params.ts";
import { computations } from "../src/pipelines/compute.ts";
import { openModel } from "../src/pipelines/open/open-node.ts";
import { finished, imagePipeline } from "../src/pipelines/pipeline.ts";
import { safetensorsStream } from "../src/weights/safetensors/write.ts";
import { writeFileAtomic } from "../src/weights/sources/atomic-node.ts";
import { exists } from "../src/weights/sources/folder-node.ts";
import { spreadOf } from "../test/support/sd3/parts.ts";
import { t5TokenizerFiles } from "../test/support/sd3/tokenizers.ts";
import { printAnnounced, printingBackend, seconds } from "./full-size/measured.ts";

const presets = { "mean-flow": "MiniT2I-B/16-MF", "small-steps": "MiniT2I-B/16" } as const;
const [folder, form = "mean-flow", compute = "float32"] = process.argv.slice(2);
if (
  folder === undefined ||
  (form !== "mean-flow" && form !== "small-steps") ||
  (compute !== "float32" && compute !== "int8")
) {
  throw new UsageError(
    `Give a folder to write to, one of ${Object.keys(presets).join(", ")}, and one of ${computations.join(", ")}.`,
  );
}

/** Standard normal numbers. */
const drawn = normal(fork(randomKey(1), "numbers"), [2 ** 20]).data;
let written = 0;

/**
 * The bytes of a weight whose activations keep about the same size. Each weight begins elsewhere in the numbers: ONNX Runtime keeps equal
 * weights of one program once, so that they would take less memory than real ones.
 */
function* madeUp(name: string, shape: readonly number[]): Generator<Uint8Array> {
  const [mean, deviation] = spreadOf(name, shape);
  const first = (written++ * 7919) % drawn.length;
  const piece = drawn.map((_, i) => mean + deviation * drawn[(first + i) % drawn.length]!);
  for (let left = sizeOf(shape); left > 0; left -= piece.length) {
    yield new Uint8Array(piece.buffer, 0, byteSize("float32") * Math.min(left, piece.length));
  }
}

async function write(file: string, { declared }: Pick<ParamsRoot, "declared">): Promise<void> {
  const target = path.join(folder!, file);
  await mkdir(path.dirname(target), { recursive: true });
  if (await exists(target)) return;
  const tensors = [...declared].map(([name, { tensor }]) => {
    const shape = tensor.shape as readonly number[];
    return { name, dtype: "float32" as const, shape, bytes: () => madeUp(name, shape) };
  });
  await writeFileAtomic(target, safetensorsStream(tensors));
}

const network = networkPresets().get(presets[form])!;
const file = `${form}/diffusion_models/minit2i-b-16.safetensors`;
await write(file, traceNetwork(network).params);
const encoder = t5EncoderParams(t5EncoderPresets["flan-t5-large"]);
await write(`${form}/text_encoders/flan-t5-large.safetensors`, encoder);
await mkdir(path.join(folder, form, "tokenizer"), { recursive: true });
for (const [name, content] of Object.entries(t5TokenizerFiles())) {
  const bytes = new TextEncoder().encode(content);
  await writeFileAtomic(path.join(folder, form, "tokenizer", name), bytes);
}

const size = { width: 512, height: 512 };
const start = performance.now();
const model = await openModel(path.join(folder, file));
console.log(`opened after ${seconds(start)} s`);
printAnnounced(model, size, form === "mean-flow" ? 1 : 2, compute);
const pipeline = imagePipeline(model, printingBackend());
const onProgress = ({ step }: { readonly step: number }) =>
  console.log(`step ${step} done after ${seconds(start)} s`);
const asked = { prompt: "a red cat", steps: 4, seed: 1, ...size };
const [picture] = await finished(pipeline.generate({ ...asked, compute, onProgress }));
console.log(`drew ${picture!.width}×${picture!.height} pixels after ${seconds(start)} s`);
await pipeline.dispose();
