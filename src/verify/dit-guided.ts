/** A recorded DiT with guidance, as a network for samplers. */
import { input } from "../engine/graph/functional.ts";
import { graphOf } from "../engine/graph/graph.ts";
import { type NdArray, ndarray, scalar } from "../engine/arrays/ndarray.ts";
import { batchTimes } from "../engine/graph/shape.ts";
import type { Network } from "../diffusion/denoiser.ts";
import { createParams } from "../nn/params.ts";
import { checkedWeights } from "../weights/check-keys.ts";
import type { BackendSource } from "./family.ts";
import { recordedConfig, recordedFamily } from "./forward.ts";
import { recordedFields, recordedModel } from "./network.ts";
import type { Recording } from "./recording.ts";

export interface GuidedDiT {
  readonly network: Network;
  readonly learnedVariance: boolean;
  dispose(): Promise<void>;
}

/**
 * Computes `forward_with_cfg` of the model whose weights the recording contains or refers to. Its arguments are
 * `args.dit_args`, or those of the recording with the weights.
 *
 * @param y classes [2B] of both halves of the batch
 */
export async function guidedDiT(
  recording: Recording,
  backend: BackendSource,
  y: NdArray,
  scale: number,
): Promise<GuidedDiT> {
  const { args, weights } = recordedModel(recording);
  // The recording's own arguments say what the process used, beside those of the process.
  const own = recordedFields(recording).object("args");
  const family = recordedFamily("dit");
  const ditArgs = own.has("dit_args") ? own.object("dit_args") : args;
  const config = recordedConfig(family, recording, ditArgs);
  const params = createParams();
  const twice = batchTimes(2);
  const inputs = {
    x: input("x", [twice, config.channels, ...config.size]),
    t: input("t", [twice]),
    y: input("y", [twice], y.dtype),
  };
  const output = family.recorded.guided!(params, inputs, config, input("scale", []));
  const source = checkedWeights(params, weights);
  const program = await (await backend()).compile(graphOf({ output }), { weights: source });
  return {
    learnedVariance: config.learnedVariance,
    async network(x, { time }) {
      const count = x.shape[0]!;
      const t = ndarray("float32", [count], new Array<number>(count).fill(time));
      return (await program.run({ x, t, y, scale: scalar(scale) }))["output"]!;
    },
    dispose: () => program.dispose(),
  };
}
