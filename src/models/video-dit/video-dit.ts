/**
 * A video DiT: the transformer of DiT on patches of time and space, all of which attend to each other and to the tokens of a text. Each
 * frame may have a time of its own, as in diffusion forcing (Chen et al., 2024), so that clips are drawn around given frames. A still
 * picture is a clip of one frame.
 */
import { ShapeError } from "../../engine/errors.ts";
import { formatShape } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import type { ConditionedInputs } from "../../nn/conditioning.ts";
import type { BlockOptions } from "../../nn/blocks.ts";
import type { Params } from "../../nn/params.ts";
import { patchTransformer } from "../../nn/patch-transformer.ts";
import type { VideoDiTConfig } from "./config.ts";
import { movingCanvas } from "./moving-canvas.ts";

/**
 * Predicts the target of the diffusion process: [B, channels, frames, H, W] → the same shape.
 *
 * @param inputs.start with a canvas, the frames of a longer clip before this one, [B]
 * @param inputs.t times [B], or one for each patch of time, [B, frames / framePatch]
 * @throws ShapeError if the patch does not divide the clip, or the condition does not match the config
 */
export function videoDiT(
  p: Params,
  inputs: ConditionedInputs,
  config: VideoDiTConfig,
  { recompute }: Pick<BlockOptions, "recompute"> = {},
): Tensor {
  const { patch, framePatch, channels, canvas } = config;
  if (inputs.x.rank !== 5) {
    throw new ShapeError(
      `A video DiT draws clips, [B, ${channels}, frames, H, W], but its input is ${formatShape(inputs.x.shape)}; give a picture as a clip of one frame.`,
    );
  }
  const text = config.condition.kind === "text" ? { text: "in-context" as const } : {};
  const { start } = inputs;
  if (canvas && !start) {
    throw new ShapeError(
      "The canvas of this video DiT moves with time; give the frames before the clip as `start`, 0 for a clip by itself.",
    );
  }
  return patchTransformer(
    p,
    inputs,
    { ...config, block: { kind: "adaLN-zero", ...text } },
    {
      title: "video DiT",
      recompute,
      patch: [framePatch, patch, patch],
      ...(canvas && {
        canvas: (scope, condition, grid) =>
          movingCanvas(scope, condition, start!, grid, config, canvas),
      }),
    },
  );
}
