/**
 * PixArt-α and -Σ of diffusers: `out.y` for `in.hidden_states`, `in.timestep`,
 * `in.encoder_hidden_states` and its mask, and of α's `in.resolution` and `in.aspect_ratio`; gradients of the
 * mean of its square.
 */
import { pixArt as model, pixArtConfig } from "../models/pixart/pixart.ts";
import { createParams } from "../nn/params.ts";
import type { Family } from "./family.ts";
import { computeNetwork, recordedInput, recordedModel, requiredInput } from "./network.ts";
export const pixArt: Family = (recording, backend) => {
  const config = pixArtConfig(recordedModel(recording).args);
  const { io } = recording;
  const inputs = {
    x: requiredInput(recording, "hidden_states"),
    t: requiredInput(recording, "timestep").cast("float32"),
    text: requiredInput(recording, "encoder_hidden_states"),
    mask: recordedInput(io, "encoder_attention_mask")?.cast("bool"),
    resolution: recordedInput(io, "resolution")?.cast("float32"),
    aspectRatio: recordedInput(io, "aspect_ratio")?.cast("float32"),
  };
  const params = createParams();
  const y = model(params, inputs, config);
  const loss = y.square().mean();
  return computeNetwork(recording, backend, { params, outputs: { "out.y": y }, loss });
};
