/**
 * The U-Net as openai/guided-diffusion builds it: `out.y` of `in.x`, `in.timesteps` and, where it has classes, `in.y`;
 * gradients of the mean of its square.
 */
import { ddpmUNetConfig } from "../models/ddpm-unet/checkpoint.ts";
import { ddpmUNet as model } from "../models/ddpm-unet/ddpm-unet.ts";
import { createParams } from "../nn/params.ts";
import type { BackendSource, Computed } from "./family.ts";
import { computeNetwork, recordedModel, requiredInput } from "./network.ts";
import type { Recording } from "./recording.ts";

export function ddpmUNet(recording: Recording, backend: BackendSource): AsyncIterable<Computed> {
  const config = ddpmUNetConfig(recordedModel(recording).args);
  const inputs = {
    x: requiredInput(recording, "x"),
    t: requiredInput(recording, "timesteps").cast("float32"),
    y: config.condition.kind === "class" ? requiredInput(recording, "y") : undefined,
  };
  const params = createParams();
  const y = model(params, inputs, config);
  const loss = y.square().mean();
  return computeNetwork(recording, backend, { params, outputs: { "out.y": y }, loss });
}
