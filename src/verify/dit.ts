/**
 * DiT as facebookresearch/DiT builds it. Recorded are `out.forward` of `in.x`, `in.t` and `in.y`, with the gradients of
 * its mean square; and `out.forward_with_cfg` of `in.cfg_x`, `in.cfg_t`, `in.cfg_y` and `in.cfg_scale`.
 */
import { input } from "../engine/graph/functional.ts";
import { batchTimes } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { type DiTConfig } from "../models/dit/config.ts";
import { ditConfig } from "../models/dit/checkpoint.ts";
import { dit, ditWithGuidance } from "../models/dit/dit.ts";
import { createParams } from "../nn/params.ts";
import { checkTables } from "../weights/check-keys.ts";
import type { BackendSource, Computed } from "./family.ts";
import { computeNetwork, recordedModel, requiredInput } from "./network.ts";
import type { Recording } from "./recording.ts";

export async function* ditFamily(
  recording: Recording,
  backend: BackendSource,
): AsyncGenerator<Computed> {
  const { args, weights } = recordedModel(recording);
  const config = ditConfig(args);
  const { entries } = recording.io;
  if (entries.has("out.forward") || recording.gradients) {
    const params = createParams();
    const [x, t, y] = ["x", "t", "y"].map((name) => requiredInput(recording, name)) as Three;
    const output = dit(params, { x, t: t.cast("float32"), y }, config);
    await checkTables(params, weights);
    const network = { params, outputs: { "out.forward": output }, loss: output.square().mean() };
    yield* computeNetwork(recording, backend, network);
  }
  if (entries.has("out.forward_with_cfg")) {
    yield* computeNetwork(
      { ...recording, gradients: undefined },
      backend,
      guided(recording, config),
    );
  }
}

type Three = [Tensor, Tensor, Tensor];

function guided(recording: Recording, config: DiTConfig) {
  const params = createParams();
  const [x, t, y] = ["cfg_x", "cfg_t", "cfg_y"].map((name) => doubled(recording, name)) as Three;
  const scale = requiredInput(recording, "cfg_scale").cast("float32");
  const inputs = { x, t: t.cast("float32"), y };
  return {
    params,
    outputs: { "out.forward_with_cfg": ditWithGuidance(params, inputs, config, scale) },
  };
}

/** An input that holds each image of the batch twice. */
function doubled(recording: Recording, name: string): Tensor {
  const { shape, dtype } = requiredInput(recording, name);
  return input(`in.${name}`, [batchTimes(2), ...shape.slice(1)], dtype);
}
