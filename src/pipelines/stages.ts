/** The programs that drawing runs one after another. */
import { decoderGraph, encoderGraph, networkGraph } from "./graphs.ts";
import type { ImageModel, Stage } from "./image-model.ts";

type Size = readonly [height: number, width: number];

/** The stages of one model; the same stage is the same object each time. */
export interface Stages {
  readonly encoders: readonly Stage[];
  /** For latents, or pixels, of a height and width; with some layers that rows may skip. */
  network(size: Size, skippable?: readonly number[]): Stage;
  /** Whether larger latents are decoded in tiles. */
  readonly tiled: boolean;
  /** For latents of a height and width; undefined where the network draws pixels. */
  decoder(size: Size): Stage | undefined;
  /** For images of a height and width; undefined where the network draws pixels. */
  imageEncoder(size: Size): Stage | undefined;
}

/** What of a model tells its stages. */
export type Staged = Pick<ImageModel, "network" | "weights" | "decoder" | "embedder">;

export function stagesOf({ network, weights, decoder, embedder }: Staged): Stages {
  const made = new Map<string, Stage>();
  const once = (key: string, stage: Stage): Stage => {
    const found = made.get(key) ?? stage;
    made.set(key, found);
    return found;
  };
  return {
    encoders: embedder?.encoders ?? [],
    tiled: decoder?.kind === "kl",
    network: (size, skippable = []) =>
      once(`network ${size.join("×")} ${skippable.join()}`, {
        name: "the network",
        kind: "network",
        graph: () => networkGraph(network, size, skippable),
        weights,
      }),
    decoder: (size) =>
      decoder &&
      once(`decoder ${size.join("×")}`, {
        name: "the decoder",
        kind: "decoder",
        graph: () => decoderGraph(decoder, size),
        weights: decoder.weights,
      }),
    imageEncoder: (size) =>
      decoder &&
      once(`image encoder ${size.join("×")}`, {
        name: "the encoder of the image",
        kind: "image encoder",
        graph: () => encoderGraph(decoder, size),
        weights: decoder.weights,
      }),
  };
}
