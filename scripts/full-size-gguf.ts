/**
 * Writes FLUX.2 [klein] 4B at full size as ComfyUI's folders of GGUF files with made-up numbers (8 GB), then opens it and draws one step
 * at 512×512: the time until the network is ready, the time of the step, and the memory, beside what was announced.
 *
 *     node scripts/run.mjs scripts/full-size-gguf.ts FOLDER [Q8_0|Q4_K|…] [float32|int8] [STEPS]
 */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { UsageError } from "../src/engine/errors.ts";
import { blockFormats } from "../src/engine/arrays/blocks.ts";
import { autoencoderKLPresets } from "../src/models/coders/autoencoder-kl-config.ts";
import { autoencoderKLParams } from "../src/models/coders/autoencoder-kl.ts";
import { flux2Presets } from "../src/models/flux2/config.ts";
import { traceNetwork } from "../src/models/network.ts";
import { qwen3Params, qwen3Presets } from "../src/models/text-encoders/qwen3.ts";
import type { ParamsRoot } from "../src/nn/params.ts";
import { openModel } from "../src/pipelines/open/open-node.ts";
import { computations } from "../src/pipelines/compute.ts";
import { finished, imagePipeline } from "../src/pipelines/pipeline.ts";
import { exists } from "../src/weights/sources/folder-node.ts";
import { writeFileAtomic } from "../src/weights/sources/atomic-node.ts";
import { type GGUFType, tensorBytes } from "../src/weights/gguf/types.ts";
import { ggufChunks, type GGUFMetadata, type GGUFTensor } from "../src/weights/gguf/write.ts";
import { printAnnounced, printingBackend, seconds } from "./full-size/measured.ts";
import { llamaWeightNames, qwen3Metadata } from "../test/support/flux-folders.ts";

const [folder, type = "Q8_0", compute = "float32", steps = "1"] = process.argv.slice(2);
if (
  folder === undefined ||
  !Object.hasOwn(blockFormats, type) ||
  (compute !== "float32" && compute !== "int8")
) {
  throw new UsageError(
    `Give a folder to write to, one of ${Object.keys(blockFormats).join(", ")}, and one of ${computations.join(", ")}.`,
  );
}
const size = { width: 512, height: 512 };

/** Bytes of small numbers: float16 scales of about 0.001 in each block, and anything else. */
function* madeUp(own: GGUFType, shape: readonly number[]): Generator<Uint8Array> {
  const whole = tensorBytes(own, shape);
  const rule = blockFormats[own as keyof typeof blockFormats] as { bytes: number } | undefined;
  const piece = new Uint8Array((rule?.bytes ?? 4) * 4096);
  if (rule) {
    for (let i = 0; i < piece.length; i++) piece[i] = (i * 2_654_435_761) >>> 13;
    // The bytes of every block that are a float16 are among these, in whatever type.
    const halves =
      own === "Q6_K" ? [208] : own === "Q3_K" ? [108] : own === "Q2_K" ? [80, 82] : [0];
    if (own === "Q4_K" || own === "Q5_K" || own.endsWith("_1")) halves.push(2);
    for (let at = 0; at < piece.length; at += rule.bytes) {
      for (const half of halves) piece.set([0x00, 0x04], at + half);
    }
  } else new Float32Array(piece.buffer).fill(0.5);
  for (let done = 0; done < whole; done += piece.length) {
    yield piece.subarray(0, Math.min(piece.length, whole - done));
  }
}

async function write(
  file: string,
  { declared }: Pick<ParamsRoot, "declared">,
  rename: (name: string) => string,
  inBlocks: GGUFType,
  metadata: GGUFMetadata,
): Promise<void> {
  const target = path.join(folder!, file);
  if (await exists(target)) return;
  await mkdir(path.dirname(target), { recursive: true });
  const tensors = [...declared].map(([name, { tensor }]): GGUFTensor => {
    const shape = tensor.shape as readonly number[];
    const own = shape.length === 2 && shape[1]! % 256 === 0 ? inBlocks : "F32";
    return { name: rename(name), type: own, shape, bytes: () => madeUp(own, shape) };
  });
  await writeFileAtomic(target, ggufChunks(metadata, tensors));
}

const network = { kind: "flux2", ...flux2Presets["FLUX.2-klein-4B"] } as const;
await write(
  `diffusion_models/flux-2-klein-4b-${type}.gguf`,
  traceNetwork(network).params,
  (name) => name,
  type as GGUFType,
  { "general.architecture": "flux" },
);
const encoder = qwen3Params(qwen3Presets["Qwen3-4B"]);
await write("text_encoders/qwen3-4b-Q4_K.gguf", encoder, llamaWeightNames, "Q4_K", qwen3Metadata());
const coder = autoencoderKLParams(autoencoderKLPresets["FLUX.2-ae"]);
await write("vae/flux2-vae.gguf", coder, (name) => name, "F32", {});

const start = performance.now();
const file = path.join(folder, `diffusion_models/flux-2-klein-4b-${type}.gguf`);
const model = await openModel(file, { promptTokens: 512 });
console.log(`opened after ${seconds(start)} s`);
printAnnounced(model, size, 1, compute);
const pipeline = imagePipeline(model, printingBackend());
const onProgress = ({ step }: { readonly step: number }) =>
  console.log(`step ${step} done after ${seconds(start)} s`);
const asked = { prompt: "a red cat", steps: Number(steps), seed: 1, ...size };
await finished(pipeline.generate({ ...asked, compute, onProgress }));
await pipeline.dispose();
