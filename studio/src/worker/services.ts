/** What the studio's worker does beside drawing: it describes models, writes and reads PNG files, and trains. */
import { samplers } from "../../../src/diffusion/samplers/index.ts";
import { FormatError, PatchwiseError } from "../../../src/engine/errors.ts";
import { type Card, readCard } from "../../../src/models/card.ts";
import { familyOf } from "../../../src/models/families.ts";
import type { ImageSizes } from "../../../src/models/family.ts";
import { canDrop, imageSizes } from "../../../src/models/network.ts";
import { type PictureMetadata, pictureMetadataSchema } from "../../../src/pictures/metadata.ts";
import type { Picture } from "../../../src/pictures/picture.ts";
import { toPng } from "../../../src/pictures/png.ts";
import { type GenerateSettings, recordedSettings } from "../../../src/pipelines/settings.ts";
import type { Served } from "../../../src/web/calls.ts";
import { readPngText } from "./png-text.ts";
import { trainingServices, type TrainingServices } from "./training.ts";

/** What the page shows of a model before it is downloaded. */
export interface ModelFacts {
  readonly name: string;
  readonly width: number;
  readonly height: number;
  readonly sizes: ImageSizes;
  readonly steps: number;
  readonly guidance: number;
  readonly guidable: boolean;
  readonly sampler: string;
  readonly samplers: readonly string[];
  readonly classes: readonly string[] | undefined;
  readonly takesPrompts: boolean;
  /** True if the prompt becomes one code, by a choice of a subject, style, colour and companion. */
  readonly hasPrior: boolean;
  /** Patches of a picture; 0 for networks without any. */
  readonly patches: number;
  readonly depth: number;
  readonly heads: number;
}

interface PngGiven {
  readonly picture: Picture;
  readonly settings: GenerateSettings;
  readonly seed: number;
  readonly model: string;
}

export interface StudioServices extends TrainingServices {
  readonly describe: Served<{ readonly address: string }, ModelFacts>;
  readonly png: Served<PngGiven, Uint8Array<ArrayBuffer>>;
  readonly metadata: Served<{ readonly bytes: Uint8Array }, PictureMetadata>;
}

export function studioServices(): StudioServices {
  return {
    async describe({ address }) {
      const response = await fetch(new URL("model.json", address));
      if (!response.ok) {
        throw new PatchwiseError(
          `There is no model at ${address}; it answered ${response.status}.`,
        );
      }
      return factsOf(readCard("model.json", await response.json()));
    },
    png: ({ picture, settings, seed, model }) =>
      toPng(picture, { ...recordedSettings(settings, seed), model, version: "studio" }),
    async metadata({ bytes }) {
      const text = readPngText(bytes, "patchwise");
      const found =
        text === undefined ? undefined : pictureMetadataSchema.safeParse(JSON.parse(text));
      if (found?.success) return found.data;
      throw new FormatError(
        "This picture does not say how it was drawn; give a PNG that Patchwise wrote.",
      );
    },
    ...trainingServices(),
  };
}

function factsOf({ name, network, picture, sampling, classes }: Card): ModelFacts {
  const { depth = 0, heads = 0 } = network as { depth?: number; heads?: number };
  return {
    name,
    width: picture.width,
    height: picture.height,
    sizes: imageSizes(network),
    steps: sampling.steps,
    guidance: sampling.guidance,
    guidable: canDrop(network),
    sampler: sampling.sampler,
    samplers: Object.keys(samplers),
    classes,
    takesPrompts: network.condition.kind === "text",
    hasPrior: network.prompt?.prior !== undefined,
    patches: familyOf(network).patches(network, network.size),
    depth,
    heads,
  };
}
