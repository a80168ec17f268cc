/**
 * The work of the suite `emoji`: pictures drawn by the trained transformer of the bundled model (`models/emoji`; its layers are those
 * of `src/nn/patch-transformer.ts`), from the codes of subjects, which the model's prior finds for prompts. For each batch B of `batches`:
 *
 *     x = noise                                                                        [B, 3, 64, 64]
 *     for σ, σ' in `sigmas`, 1 … 0:
 *       x₀ = network(x, 1000·σ, y)
 *       x = (1 − σ')·x₀ + σ'/σ·(x − (1 − σ)·x₀)
 *
 * which is Euler's method on rectified flow. A step of the benchmark draws one picture for each row of each batch. `result` is the
 * pictures of all batches in order, on which contenders must agree; the checksum is their mean square.
 *
 * `tensors.*` (see `tensor-file.ts`) holds the weights of the network in float32 under their names, the constant `pos_embed`, and for
 * each batch `noise.B` [B, 3, 64, 64] and the codes `y.B` [B, 1, 256]. `work.json` holds the numbers below.
 */
import { readFileSync } from "node:fs";
import { flowLevels } from "../src/diffusion/levels.ts";
import { type Graph, graphOf } from "../src/engine/graph/graph.ts";
import { packageFile } from "../src/engine/package-node.ts";
import { countMultiplyAdds } from "../src/engine/passes/cost.ts";
import { networkSchema, type TracedNetwork, traceNetwork } from "../src/models/network.ts";
import { openSafetensorsFile } from "../src/weights/index-node.ts";
import { readFloat32 } from "../src/weights/safetensors/safetensors.ts";
import { batchName } from "./sample-work.ts";
import { type HostTensor, normalSource, normalTensor } from "./tensor-file.ts";

export interface EmojiWork {
  readonly threads: number;
  readonly steps: number;
  /** Shares of noise from 1 to 0, one more than steps. */
  readonly sigmas: readonly number[];
  readonly batches: readonly number[];
  /** Numbers of a code. */
  readonly code: number;
  /** The configuration of the network in `model.json`, without its prior. */
  readonly network: object;
}

interface Card {
  readonly network: { readonly prompt: { readonly prior: { readonly code: number } } };
}

const folder = packageFile("models/emoji");

export function emojiWork(threads: number): EmojiWork {
  const { network: whole } = JSON.parse(readFileSync(`${folder}/model.json`, "utf8")) as Card;
  const { prompt, ...network } = whole;
  const steps = 20;
  const sigmas = flowLevels(steps).map(({ sigma }) => sigma);
  return { threads, steps, sigmas, batches: [1, 4], code: prompt.prior.code, network };
}

/** Traces the transformer alone: `x`, `t`, `y` and `mask` → `output`. */
export function emojiGraph({ network }: EmojiWork): Graph {
  return graphOf({ output: traced(network).output });
}

function traced(network: object): TracedNetwork {
  return traceNetwork(networkSchema().parse(network));
}

export async function* emojiTensors(
  work: EmojiWork,
): AsyncGenerator<readonly [string, HostTensor]> {
  const file = await openSafetensorsFile(`${folder}/model.safetensors`);
  const read = async (name: string) => {
    const { shape, data } = await readFloat32(file.entries.get(name)!);
    return { shape, data: data as Float32Array<ArrayBuffer> };
  };
  const { declared, buffers } = traced(work.network).params;
  for (const name of declared.keys()) yield [name, await read(name)];
  for (const [name, { value }] of buffers) {
    yield [name, { shape: value.shape, data: Float32Array.from(value.data, Number) }];
  }
  const codes = await read("prompt_encoder.prior.codes"); // [subjects, styles · code]
  await file.close();
  const normal = normalSource(9);
  for (const batch of work.batches) {
    yield [`noise.${batch}`, normalTensor(normal, [batch, 3, 64, 64], 1)];
    const rows = Array.from({ length: batch }, (_, i) => {
      const start = (37 + 211 * i) * codes.shape[1]!;
      return [...codes.data.subarray(start, start + work.code)];
    });
    yield [`y.${batch}`, { shape: [batch, 1, work.code], data: Float32Array.from(rows.flat()) }];
  }
}

/** Floating-point operations of each part: two for each multiply-add of the network's matrix products. */
export function emojiFlops(work: EmojiWork): Record<string, number> {
  const graph = emojiGraph(work);
  return Object.fromEntries(
    work.batches.map((batch) => [
      batchName(batch),
      2 * work.steps * countMultiplyAdds(graph, batch),
    ]),
  );
}
