/** The optimizer that a config asks for. */
import { input } from "../../engine/graph/functional.ts";
import { adamW } from "./adamw.ts";
import type { TrainingConfig } from "../config/config.ts";
import { muon } from "./muon.ts";
import type { Optimizer } from "./optimizer.ts";

/** Its learning rate is an input, `rate`, of each step. */
export function optimizerOf(options: TrainingConfig["training"]["optimizer"]): Optimizer {
  const learningRate = input("rate", []);
  const { beta1, beta2, epsilon, weightDecay } = options;
  const adam = adamW({ learningRate, beta1, beta2, epsilon, weightDecay });
  if (options.kind === "adamw") return adam;
  const { momentum } = options;
  return muon({ learningRate, momentum, weightDecay, rest: adam, matricesIn });
}

/**
 * Muon's matrices are those inside of blocks, with convolutions as one row an output; q, k and v stand one upon the other,
 * and modulations begin at zero.
 */
function matricesIn(name: string, { shape }: { readonly shape: readonly unknown[] }): number {
  if (shape.length < 2 || !/blocks?\.\d/.test(name) || /adaLN|emb_layers/.test(name)) return 0;
  return name.includes(".qkv.") ? 3 : 1;
}
