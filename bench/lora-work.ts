/**
 * The work of the suite `lora`: a training step of a LoRA on the transformer of `train-work.ts`, beside a forward pass with the loss on
 * the same batch.
 *
 * The linear layers `attn.qkv`, `attn.proj`, `mlp.fc1` and `mlp.fc2` of every block compute linear(a, name) + alpha / rank · (a · Aᵀ) · Bᵀ
 * with `name.lora_A.weight` [rank, in] and `name.lora_B.weight` [out, rank], which alone are trained, by AdamW, and averaged. The
 * forward pass is that of the base, without a LoRA. B starts far from zero, so that a mistake anywhere moves the loss.
 */
import { type HostTensor, normalSource, normalTensor } from "./tensor-file.ts";
import { trainParameters, trainTensors, type TrainWork, trainWork } from "./train-work.ts";

export interface LoraWork extends TrainWork {
  readonly rank: number;
  readonly alpha: number;
}

export function loraWork(threads: number, depth?: number): LoraWork {
  return { ...trainWork(threads, depth), rank: 8, alpha: 8, learningRate: 1e-3, weightDecay: 0 };
}

const adapted = /^blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])\.weight$/;

/** The matrices of the LoRA with their shapes, in a fixed order. */
function loraParameters(work: LoraWork): (readonly [string, readonly [number, number]])[] {
  return trainParameters(work).flatMap(([name, [outputs, inputs]]) => {
    if (!adapted.test(name)) return [];
    const layer = name.replace(/\.weight$/, "");
    return [
      [`${layer}.lora_A.weight`, [work.rank, inputs!]],
      [`${layer}.lora_B.weight`, [outputs!, work.rank]],
    ] as const;
  });
}

export function* loraTensors(work: LoraWork): Generator<readonly [string, HostTensor]> {
  yield* trainTensors(work);
  const random = normalSource(2);
  for (const [name, shape] of loraParameters(work)) {
    yield [
      name,
      normalTensor(random, shape, name.includes("lora_A") ? 1 / Math.sqrt(shape[1]) : 0.02),
    ];
  }
}

/**
 * Floating-point operations of the forward pass and of a step: two for each multiply-add of the matrix products. A step has no gradient of
 * the base's weights, and none of anything below the first adapted layer or of the conditioning; attention costs twice as much backwards.
 */
export function loraFlops(work: LoraWork): { readonly forward: number; readonly step: number } {
  const { hidden, depth, tokens, batch, channels, frequencies, rank } = work;
  const rows = batch * tokens;
  const matrices = rows * 12 * hidden ** 2;
  const attention = 2 * rows * tokens * hidden;
  const last = rows * hidden * channels;
  const forward =
    depth * (matrices + attention + batch * hidden * 6 * hidden) +
    batch * hidden * (hidden + 2 * hidden + frequencies) +
    rows * channels * hidden +
    last;
  const backward = depth * (matrices + 2 * attention) - rows * 3 * hidden ** 2 + last;
  const widths = loraParameters(work).reduce((sum, [, [a, b]]) => sum + a + b - rank, 0);
  const adapters = 3 * rows * rank * widths - rows * rank * hidden;
  return { forward: 2 * forward, step: 2 * (forward + backward + adapters) };
}
