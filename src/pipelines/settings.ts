/** A request decided: each setting checked, or the model's own where none was given. */
import { checkSteps } from "../diffusion/levels.ts";
import { UsageError } from "../engine/errors.ts";
import { canDrop, imageSizes } from "../models/network.ts";
import { codecShape } from "../models/coders/image-codec.ts";
import { quote } from "../engine/messages.ts";
import { avoidedBy, nothing, type Told, toldBy } from "./conditions.ts";
import { strengthOf } from "./given-image.ts";
import { guidanceDetails } from "./guidance-settings.ts";
import type { ImageModel } from "./image-model.ts";
import type { GenerateRequest, GenerateSettings } from "./pipeline.ts";

/** What a generation goes by. */
export interface Decided {
  readonly settings: GenerateSettings;
  readonly told: Told;
  readonly avoided: Told;
}

/** @throws UsageError that names what cannot be */
export function decide(request: GenerateRequest, model: ImageModel): Decided {
  const told = toldBy(request, model);
  const avoided = avoidedBy(request, model);
  const { seed = 0, count = 1, steps = model.defaults.steps } = request;
  const { sampler = model.process.sampler } = request;
  checkCount(count);
  checkSeed(seed, count);
  checkSteps(steps);
  model.process.samplerNamed(sampler, steps);
  const strength = strengthOf(request);
  const size = sizeOf(request.size ?? sizeOfImage(request), model);
  model.process.levels(steps, { size: latentSize(size, model), shift: request.shift });
  const guidance = guidanceOf(request, told, model);
  const guidedChannels = channelsOf(request, model);
  return {
    told,
    avoided,
    settings: {
      ...(told.kind === "text" && { prompt: told.text }),
      ...(told.kind === "class" && { class: told.name }),
      ...(request.negative !== undefined && { negative: request.negative }),
      seed,
      steps,
      guidance,
      ...(guidance !== 1 && guidedChannels !== undefined && { guidedChannels }),
      size,
      count,
      sampler,
      ...temperatureOf(request, model),
      ...(request.shift !== undefined && { shift: request.shift }),
      ...guidanceDetails(request, model),
      ...(strength !== undefined && { strength }),
      ...(request.mask && { masked: true }),
      ...(model.loras && { loras: model.loras }),
      warnings: warningsOf(told, avoided, request, guidance, model),
    },
  };
}

function checkCount(count: number): void {
  if (Number.isSafeInteger(count) && count >= 1) return;
  throw new UsageError(`${count} pictures were asked for; give a whole number of at least 1.`);
}

function checkSeed(seed: number, count: number): void {
  if (Number.isSafeInteger(seed) && seed >= 0 && Number.isSafeInteger(seed + (count - 1))) return;
  throw new UsageError(
    `The seed ${seed} is not one; give a whole number from 0 to ${Number.MAX_SAFE_INTEGER - count + 1}.`,
  );
}

function guidanceOf(request: GenerateRequest, told: Told, model: ImageModel): number {
  const { name, network, defaults } = model;
  const guidable = canDrop(network) || request.negative !== undefined;
  const { guidance = guidable && told !== nothing ? defaults.guidance : 1 } = request;
  if (!Number.isFinite(guidance) || guidance < 0) {
    throw new UsageError(
      `The guidance ${guidance} is not one; give a number of at least 0, where 1 is no guidance.`,
    );
  }
  if (guidance !== 1 && !guidable) {
    throw new UsageError(
      network.condition.kind === "none"
        ? `${name} draws nothing in particular, so there is nothing to guide towards; leave the guidance of ${guidance} out.`
        : `${name} never learned to draw without a condition, which a guidance of ${guidance} needs; leave it out, or give a negative class to lead away from.`,
    );
  }
  return guidance;
}

/** @throws UsageError when it is none of tokens, or no temperature */
function temperatureOf(
  { temperature }: GenerateRequest,
  { name, process, defaults }: ImageModel,
): Pick<GenerateSettings, "temperature"> {
  if (process.kind !== "tokens") {
    if (temperature === undefined) return {};
    throw new UsageError(
      `A temperature of ${temperature.join(" to ")} was asked for, but ${name} draws no tokens; leave it out.`,
    );
  }
  const decided = temperature ?? defaults.temperature ?? [1, 1];
  if (decided.every((each) => each >= 0 && each < Infinity)) return { temperature: decided };
  throw new UsageError(
    `The temperature ${decided.join(" to ")} is not one; give numbers of at least 0, of the first and of the last step.`,
  );
}

function channelsOf(request: GenerateRequest, { network, defaults }: ImageModel) {
  const { guidedChannels = defaults.guidedChannels } = request;
  if (guidedChannels === undefined) return undefined;
  if (
    Number.isInteger(guidedChannels) &&
    guidedChannels >= 1 &&
    guidedChannels <= network.channels
  ) {
    return guidedChannels;
  }
  throw new UsageError(
    `Guidance for the first ${guidedChannels} channels was asked for, but there are ${network.channels}; give a whole number from 1 to ${network.channels}.`,
  );
}

/** What of a model the sizes of its pictures depend on. */
export type Sized = Pick<ImageModel, "name" | "network" | "decoder">;

/** Pixels along a side that one number of the network's input stands for. */
function pixelsPerLatent({ decoder }: Sized): number {
  return decoder ? codecShape(decoder).factor : 1;
}

/**
 * Height and width of what the network draws, for pictures of a size.
 *
 * @throws UsageError when it cannot draw that size
 */
export function latentSize(
  size: GenerateRequest["size"],
  model: Sized,
): readonly [height: number, width: number] {
  const [height, width] = sizeOf(size, model);
  const scale = pixelsPerLatent(model);
  return [height / scale, width / scale];
}

function sizeOfImage({ image }: GenerateRequest): GenerateRequest["size"] {
  return image && [image.height, image.width];
}

function sizeOf(size: GenerateRequest["size"], model: Sized): readonly [number, number] {
  const { name, network } = model;
  const scale = pixelsPerLatent(model);
  const own = network.size.map((side) => side * scale) as [number, number];
  const [height, width] = size ?? own;
  const sizes = imageSizes(network);
  const unit = sizes.unit * scale;
  const shown = (sides: readonly number[]) => sides.toReversed().join("×");
  if (
    ![height, width].every((side) => Number.isSafeInteger(side) && side > 0 && side % unit === 0)
  ) {
    const near = [height, width].map((side) =>
      Number.isFinite(side) ? Math.max(1, Math.round(side / unit)) * unit : unit,
    );
    throw new UsageError(
      `${name} cannot draw ${shown([height, width])} pixels; give a multiple of ${unit} for width and height, such as ${shown(near)}.`,
    );
  }
  const most = (sizes.most ?? Infinity) * scale;
  if (Math.max(height, width) > most) {
    throw new UsageError(
      `${name} knows the places of at most ${shown([most, most])} pixels, so it cannot draw ${shown([height, width])}; give a smaller size.`,
    );
  }
  if (sizes.fixed && (height !== own[0] || width !== own[1])) {
    throw new UsageError(
      `${name} has learned the places of ${shown(own)} pixels and no others, so it cannot draw ${shown([height, width])}; leave the size out.`,
    );
  }
  return [height, width];
}

function warningsOf(
  told: Told,
  avoided: Told,
  { negative }: GenerateRequest,
  guidance: number,
  model: ImageModel,
): string[] {
  const cut = (what: string, heard: Told) =>
    heard.kind !== "text"
      ? []
      : model
          .embedder!.unheard(heard.text)
          .map(
            ({ by, length, words }) =>
              `The ${what} is longer than the ${length} tokens that ${by} hears; it does not hear ${quote(words)}.`,
          );
  return [
    ...(model.warnings ?? []),
    ...cut("prompt", told),
    ...cut("negative", avoided),
    ...(negative !== undefined && guidance === 1
      ? [`The negative ${quote(negative)} does not count, since a guidance of 1 is none.`]
      : []),
  ];
}
