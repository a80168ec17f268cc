/** What a request says of guidance beyond its scale, checked. */
import { UsageError } from "../engine/errors.ts";
import { skippableLayers } from "../models/network.ts";
import type { ImageModel } from "./image-model.ts";
import type { GenerateRequest, GenerateSettings, SkipLayers } from "./pipeline.ts";

/** @throws UsageError that names what cannot be */
export function guidanceDetails(
  { guidanceInterval, rescale, guidedChannels, skipLayers }: GenerateRequest,
  model: ImageModel,
): {
  readonly guidanceInterval?: readonly [above: number, upTo: number];
  readonly rescale?: number;
  readonly skipLayers?: SkipLayers;
} {
  if (model.process.kind === "tokens") {
    const given = { guidanceInterval, rescale, guidedChannels, skipLayers };
    const [name] = Object.entries(given).find(([, value]) => value !== undefined) ?? [];
    if (name === undefined) return {};
    throw new UsageError(
      `${model.name} draws tokens, of which guidance has no ${name}; leave it out.`,
    );
  }
  if (guidanceInterval) {
    const [above, upTo] = guidanceInterval;
    if (!(above >= 0 && above < upTo)) {
      throw new UsageError(
        `Guidance between noise-to-signal ratios of ${above} and ${upTo} was asked for; give two numbers of at least 0, the smaller one first.`,
      );
    }
  }
  if (rescale !== undefined && !(rescale >= 0 && rescale <= 1)) {
    throw new UsageError(
      `Guidance cannot be rescaled by ${rescale}; give a number from 0, not at all, to 1, wholly.`,
    );
  }
  return {
    ...(guidanceInterval && { guidanceInterval }),
    ...(rescale !== undefined && { rescale }),
    ...(skipLayers && { skipLayers: checkedSkipLayers(skipLayers, model) }),
  };
}

/** Layers that some rows of a run skip: none where that counts for nothing. */
export function skippedLayers({ skipLayers }: GenerateSettings): readonly number[] {
  return skipLayers && skipLayers.scale !== 0 ? skipLayers.layers : [];
}

function checkedSkipLayers(
  { layers = [], scale = 2.8, from = 0.01, to = 0.2 }: Partial<SkipLayers>,
  { name, network }: ImageModel,
): SkipLayers {
  const count = skippableLayers(network);
  if (count === 0) {
    throw new UsageError(
      `${name} is a ${network.kind} and has no layers that guidance could skip, as Stable Diffusion 3's MMDiT has; leave skipping layers out.`,
    );
  }
  const wrong = layers.find((layer) => !(Number.isInteger(layer) && layer >= 0 && layer < count));
  if (wrong !== undefined || layers.length === 0) {
    throw new UsageError(
      `${wrong === undefined ? "No layer" : `The layer ${wrong}`} was to be skipped, but ${name} has the layers 0 to ${count - 1}; give some of these.`,
    );
  }
  if (!Number.isFinite(scale) || scale < 0) {
    throw new UsageError(
      `The skip guidance ${scale} is not one; give a number of at least 0, where 0 is none.`,
    );
  }
  if (!(from >= 0 && from < to && to <= 1)) {
    throw new UsageError(
      `Layers were to be skipped from the share ${from} of the steps to ${to}; give two numbers from 0 to 1, the smaller one first.`,
    );
  }
  return { layers: [...new Set(layers)].toSorted((a, b) => a - b), scale, from, to };
}
