/**
 * Reference pictures, which the network sees without noise beside what it draws, for editing: how they are fitted, checked and
 * encoded. Families that take them say so by `NetworkFamily.references`.
 */
import { stackRows } from "../diffusion/arrays.ts";
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { UsageError } from "../engine/errors.ts";
import { recordOf } from "../engine/records.ts";
import { codecShape } from "../models/coders/image-codec.ts";
import { families, familyOf } from "../models/families.ts";
import type { ReferenceRules } from "../models/family.ts";
import { referenceNames } from "../models/network.ts";
import { centerCropped, resizedByLanczos } from "../pictures/lanczos.ts";
import { type Picture, valuesOf, withChannels } from "../pictures/picture.ts";
import type { ImageModel, RunStage, Stages } from "./image-model.ts";

type Size = readonly [height: number, width: number];
type Taking = Pick<ImageModel, "name" | "network" | "decoder">;

/**
 * Reference pictures as the network's encoder takes them: large ones made smaller, then cropped around their centre to whole tokens.
 *
 * @throws UsageError if the model takes none, or one is too small or too narrow
 */
export function fittedReferences(
  pictures: readonly Picture[] = [],
  model: Taking,
): readonly Picture[] {
  if (pictures.length === 0) return [];
  const rules = rulesOf(model);
  return pictures.map((picture, i) => {
    checkSides(picture, i, rules);
    return fitted(picture, rules.pixels(pictures.length), model);
  });
}

/** The most pixels of a picture that takes its size from its reference: those that FLUX.2 is mostly used for. */
const MOST_DRAWN = 1024 ** 2;

/**
 * The size in which a picture is drawn unless one is asked for, that of the first reference.
 *
 * @throws UsageError as `fittedReferences`
 */
export function referenceSize(
  [first]: readonly Picture[] = [],
  model: Taking,
): Pick<Picture, "width" | "height" | "channels"> | undefined {
  if (!first) return undefined;
  const rules = rulesOf(model);
  checkSides(first, 0, rules);
  return wholeTokens(cappedSize(first, Math.min(MOST_DRAWN, rules.pixels(1))), first, model);
}

/** Returns true if a model takes reference pictures. */
export function takesReferences({ network }: Pick<ImageModel, "network">): boolean {
  return familyOf(network).references !== undefined;
}

function rulesOf({ name, network }: Taking): ReferenceRules {
  const { references } = familyOf(network);
  if (references) return references;
  const taking = [...families.values()].filter((family) => family.references);
  throw new UsageError(
    `${name} takes no reference pictures; leave references out, or draw with a model of ${taking.map(({ title }) => title).join(" or ")}.`,
  );
}

function checkSides({ width, height }: Picture, index: number, rules: ReferenceRules): void {
  const { leastSide, aspect } = rules;
  const [short, long] = [Math.min(width, height), Math.max(width, height)];
  if (short >= leastSide && long <= aspect * short) return;
  throw new UsageError(
    `Reference picture ${index + 1} has ${width}×${height} pixels, but its sides must be at least ${leastSide} long, and one at most ${aspect} times as long as the other; crop or enlarge it.`,
  );
}

function cappedSize({ width, height }: Picture, most: number) {
  const scale = Math.min(1, Math.sqrt(most / (width * height)));
  return { width: Math.trunc(width * scale), height: Math.trunc(height * scale) };
}

/** A size rounded down to multiples of the pixels that one latent stands for. */
function wholeTokens(
  { width, height }: { readonly width: number; readonly height: number },
  { channels }: Picture,
  { decoder }: Taking,
) {
  const unit = decoder ? codecShape(decoder).factor : 1;
  const whole = (side: number) => Math.floor(side / unit) * unit;
  return { width: whole(width), height: whole(height), channels };
}

function fitted(picture: Picture, most: number, model: Taking): Picture {
  const channels = model.decoder ? codecShape(model.decoder).inputs : model.network.channels;
  const own = withChannels(picture, channels as 1 | 3);
  const capped = resizedByLanczos(own, cappedSize(own, most));
  return centerCropped(capped, wholeTokens(capped, own, model));
}

/** Reference pictures as inputs of the network. */
export interface EncodedReferences {
  /** Height and width of each as the network sees it. */
  readonly sizes: readonly Size[];
  /** `reference0`, `reference1`, …: [count, channels, h, w] each. */
  readonly inputs: Readonly<Record<string, NdArray>>;
}

/**
 * Encodes fitted reference pictures; latents are the means of the encoder.
 *
 * @param count of the pictures that are drawn, each of which has all references
 */
export async function encodeReferences(
  pictures: readonly Picture[],
  count: number,
  { model, stages, run }: { model: ImageModel; stages: Stages; run: RunStage },
): Promise<EncodedReferences> {
  const latents: NdArray[] = [];
  for (const picture of pictures) {
    const images = valuesOf(picture.pixels, picture);
    const encoder = stages.imageEncoder([picture.height, picture.width]);
    latents.push(encoder ? (await run(encoder, { images }))["latents"]! : images);
  }
  return {
    sizes: referenceSizes(pictures, model),
    inputs: recordOf(referenceNames(latents.length), (_, i) =>
      stackRows(new Array<NdArray>(count).fill(latents[i]!)),
    ),
  };
}

/** Height and width of fitted reference pictures as the network sees them. */
export function referenceSizes(pictures: readonly Picture[], { decoder }: Taking): readonly Size[] {
  const factor = decoder ? codecShape(decoder).factor : 1;
  return pictures.map(({ width, height }) => [height / factor, width / factor]);
}
