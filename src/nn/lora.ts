/**
 * LoRA, "Low-Rank Adaptation of Large Language Models" (Hu et al., 2021): the weight W of a linear layer stays fixed, and only the
 * product of two narrow matrices that is added to it is trained, W + (alpha / rank)·B·A.
 *
 * It is a view of `Params`, so models need not know of it. The layers of `linear.ts` compute x·Wᵀ + (alpha / rank)·(x·Aᵀ)·Bᵀ, so that
 * neither the sum nor its gradient is ever formed; where a weight is read in another way, it is the sum. Merging it into W later
 * gives the same numbers but for rounding.
 */
import { nearestNames, UsageError } from "../engine/errors.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { type Declared, type Params, type ParamsRoot, pathPattern, zero } from "./params.ts";

export interface LoraOptions {
  /** The width of the narrow matrices. */
  readonly rank: number;
  /** The product is multiplied by alpha / rank. */
  readonly alpha: number;
  /** Patterns of paths of linear layers, in which * matches anything but dots, and ** anything. */
  readonly targets: readonly string[];
}

/** The parts of weight + scale·b·a. */
export interface LowRankSum {
  readonly weight: Tensor;
  /** [rank, in] */
  readonly a: Tensor;
  /** [out, rank] */
  readonly b: Tensor;
  readonly scale: number;
}

const sumParts = new WeakMap<Tensor, LowRankSum>();

/** The parts of a weight to which a LoRA is added; undefined for any other weight. */
export function lowRankSum(weight: Tensor): LowRankSum | undefined {
  return sumParts.get(weight);
}

/** Every projection of attentions, and every layer of the feed-forward halves, in the network's own blocks. */
export const attentionAndMlp: readonly string[] = ["*blocks.**attn*.**", "*blocks.**mlp.**"];

/**
 * Returns a view of the parameters in which the weights of targeted linear layers are W + (alpha / rank)·B·A, with the parameters
 * `lora_A.weight` [rank, in] and `lora_B.weight` [out, rank] in the layer's scope. B is zero initially, so that nothing changes.
 *
 * @example const output = dit(withLora(params, { rank: 8, alpha: 8, targets: ["blocks.*.attn.*"] }), inputs, config);
 */
export function withLora(params: ParamsRoot, { rank, alpha, targets }: LoraOptions): ParamsRoot {
  const patterns = targets.map(pathPattern);
  const sums = new Map<string, Tensor>();
  const view = (p: Params, path: readonly string[]): Params => ({
    at: (part) => view(p.at(part), [...path, part]),
    param(name, shape, init) {
      const weight = p.param(name, shape, init);
      const layer = path.join(".");
      const [outputs, inputs] = weight.shape as readonly number[];
      if (!isLinear(`${layer}.${name}`, weight) || !patterns.some((each) => each.test(layer))) {
        return weight;
      }
      // PyTorch's initialization of linear layers, which PEFT and kohya use for A too.
      const first = { kind: "uniform", bound: 1 / Math.sqrt(inputs!) } as const;
      const a = p.at("lora_A").param("weight", [rank, inputs!], first);
      const b = p.at("lora_B").param("weight", [outputs!, rank], zero);
      const sum = sums.get(layer) ?? weight.add(b.matmul(a).mul(alpha / rank));
      sums.set(layer, sum);
      sumParts.set(sum, { weight, a, b, scale: alpha / rank });
      return sum;
    },
    buffer: (name, value) => p.buffer(name, value),
    tap: (name, tensor) => p.tap(name, tensor),
    tapped: p.tapped,
  });
  return { ...view(params, []), declared: params.declared, buffers: params.buffers };
}

/** Returns true if a parameter is a matrix that `withLora` adds. */
export function isLora(name: string): boolean {
  return /\.lora_[AB]\.weight$/.test(name);
}

/**
 * Checks that every target matches a linear layer of the model.
 *
 * @param declared the parameters that the model declared while it was traced
 * @throws UsageError that names a target without a match, and the nearest layers
 */
export function checkTargets(
  declared: ReadonlyMap<string, Declared>,
  targets: readonly string[],
): void {
  const layers = [...declared].flatMap(([name, { tensor }]) =>
    isLinear(name, tensor) ? [name.replace(/\.weight$/, "")] : [],
  );
  for (const target of targets) {
    const pattern = pathPattern(target);
    if (layers.some((layer) => pattern.test(layer))) continue;
    const kinds = [...new Set(layers.map((layer) => layer.replace(/\b\d+\b/g, "*")))];
    const near = nearestNames(target, kinds);
    throw new UsageError(
      `The LoRA's target "${target}" matches no linear layer of the model; ${near.length > 0 ? `the nearest are ${near.join(", ")}` : `it has layers such as ${kinds.slice(0, 3).join(", ")}`}.`,
    );
  }
}

/** Returns true if a parameter is the weight of a linear layer; embedding tables are matrices too, but not multiplied. */
function isLinear(name: string, { rank }: Tensor): boolean {
  return rank === 2 && name.endsWith(".weight") && !isLora(name) && !/embedding_table/.test(name);
}
