/** What a training learns from: pictures as they are, or their latents. */
import { type Loader, openLoader } from "../../data/loading/loader-node.ts";
import type { LatentDraw, LatentCache } from "../../data/latents/latents.ts";
import type { DataConfig } from "../../data/config.ts";
import type { ImageCodec } from "../../models/coders/image-codec.ts";
import { pictureShape, type RunConfig } from "../config/config.ts";
import type { ImageShape } from "../../models/default-sizes.ts";

export interface Feed {
  readonly info: Loader["info"];
  /** What the network sees of a picture. */
  readonly image: ImageShape;
  /** Where that is latents or tokens: what makes pictures of them, with the scale and shift that are used. */
  readonly coder: ImageCodec | undefined;
  /**
   * Begins to give batches, when the training's folder is there.
   *
   * @returns undefined when it was told to stop before there were any
   */
  begin(): Promise<Batches | undefined>;
  close(): Promise<void>;
}

export interface Batches {
  readonly loader: Loader;
  readonly validation: Loader | undefined;
  /** Where the batches are of latents. */
  readonly latents: LatentDraw | undefined;
}

/** Loaders of a training, from a step on, that are closed together. */
export interface Loaders {
  training(from: number, latents?: LatentCache): Promise<Loader>;
  /** Of data that is always shown in the same order; undefined where the config has none. */
  validation(latents?: LatentCache): Promise<Loader | undefined>;
  close(): Promise<void>;
}

/** Pictures, of which the first are decoded at once. */
export async function pictureFeed(config: RunConfig, step: number): Promise<Feed> {
  const loaders = loadersOf(config);
  const loader = await loaders.training(step);
  return {
    info: loader.info,
    image: pictureShape(config),
    coder: undefined,
    begin: async () => ({ loader, validation: await loaders.validation(), latents: undefined }),
    close: () => loaders.close(),
  };
}

export function loadersOf(config: RunConfig): Loaders {
  const { batch, accumulate } = config.training;
  const shape = pictureShape(config);
  const opened: Loader[] = [];
  const open = async (
    data: DataConfig,
    seed: number,
    from: number,
    latents: LatentCache | undefined,
  ) => {
    const loader = await openLoader({ data, shape, batch, seed, from, latents });
    opened.push(loader);
    return loader;
  };
  return {
    training: (step, latents) => open(config.data, config.seed, step * accumulate, latents),
    validation: async (latents) => {
      const data = config.validation?.data;
      return data && open(data, 0, 0, latents);
    },
    close: async () => {
      for (const loader of opened) await loader.close();
    },
  };
}
