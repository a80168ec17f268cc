/** What drawing goes by, whatever is drawn, and its last step: decoding. */
import type { Picture } from "../pictures/picture.ts";
import { picturesOf } from "../pictures/picture.ts";
import { rowsOf } from "../diffusion/arrays.ts";
import { castArray, type NdArray } from "../engine/arrays/ndarray.ts";
import { tiledDecode } from "../models/coders/autoencoder-kl.ts";
import type { Embed } from "./conditions.ts";
import type { ImageModel, RunStage } from "./image-model.ts";
import type { GenerateRequest } from "./pipeline.ts";
import type { Decided } from "./settings.ts";
import type { Stages } from "./stages.ts";

export interface Drawing {
  readonly model: ImageModel;
  readonly decideAll: (request: GenerateRequest) => Decided;
  readonly stages: Stages;
  readonly run: RunStage;
  readonly embed: Embed;
}

/** Latents, tokens, or pixels in [−1, 1], as pictures; one by one where decoded, since that takes most of the memory. */
export async function decodePictures(
  latents: NdArray,
  { model, stages, run }: Drawing,
  signal: AbortSignal | undefined,
): Promise<Picture[]> {
  const { decoder } = model;
  if (!decoder) return picturesOf(latents);
  const pictures: Picture[] = [];
  for (let row = 0; row < latents.shape[0]!; row++) {
    signal?.throwIfAborted();
    const decode = async (tile: NdArray) => {
      const stage = stages.decoder(tile.shape.slice(-2) as [number, number])!;
      return (await run(stage, { latents: tile }))["pixels"]!;
    };
    const own = rowsOf(latents, row, 1);
    const pixels =
      decoder.kind === "vq"
        ? await decode(own)
        : await tiledDecode(decode, castArray(own, "float32"));
    pictures.push(...picturesOf(pixels));
  }
  return pictures;
}
