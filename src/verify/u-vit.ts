/**
 * U-ViT as baofff/U-ViT builds it: `out.y` of `in.x`, `in.timesteps` and `in.y` or `in.context`; gradients of the mean of
 * its square.
 */
import { uViTConfig } from "../models/u-vit/checkpoint.ts";
import { uViT as model } from "../models/u-vit/u-vit.ts";
import { createParams } from "../nn/params.ts";
import type { BackendSource, Computed } from "./family.ts";
import { computeNetwork, recordedModel, requiredInput } from "./network.ts";
import type { Recording } from "./recording.ts";

export function uViT(recording: Recording, backend: BackendSource): AsyncIterable<Computed> {
  const config = uViTConfig(recordedModel(recording).args);
  const told = { none: undefined, class: "y", text: "context" }[config.condition.kind];
  const inputs = {
    x: requiredInput(recording, "x"),
    t: requiredInput(recording, "timesteps").cast("float32"),
    y: told === undefined ? undefined : requiredInput(recording, told),
  };
  const params = createParams();
  const y = model(params, inputs, config);
  const loss = y.square().mean();
  return computeNetwork(recording, backend, { params, outputs: { "out.y": y }, loss });
}
