/**
 * patchwise generate PROMPT: pictures of a prompt or class, as files that say how they were drawn.
 */
import { randomInt } from "node:crypto";
import type { Command } from "commander";
import { samplers } from "../diffusion/samplers/index.ts";
import { tokenSampler } from "../models/card.ts";
import { UsageError } from "../engine/errors.ts";
import { pictureGrid } from "../pictures/grid.ts";
import { pictureFormat, readPictureMetadata, writePicture } from "../pictures/file-node.ts";
import { type PictureMetadata, pictureMetadataSchema } from "../pictures/metadata.ts";
import { shippedModels } from "../models/card-node.ts";
import { openPipeline } from "../pipelines/open/open-node.ts";
import type { ChosenLora } from "../pipelines/open/lora-node.ts";
import type { OpenModelOptions } from "../pipelines/open/open-options.ts";
import type {
  DrawnPicture,
  GenerateRequest,
  GenerateSettings,
  Pipeline,
} from "../pipelines/pipeline.ts";
import { quote } from "../engine/messages.ts";
import {
  addLoraOption,
  addModelOptions,
  deviceNames,
  modelOptions,
  numberOption,
  onDevice,
  sizeOption,
} from "./options.ts";
import { addSamplingOptions, type SamplingOptions, samplingRequest } from "./sampling-options.ts";
import { checkWritable, numbered, unusedName, withSuffix } from "./output-files.ts";
import { showingDownload } from "./download-progress.ts";
import { progressWriter } from "./progress.ts";
import { showPicture } from "./terminal-picture.ts";
import { version } from "./version.ts";

interface GenerateOptions extends OpenModelOptions, SamplingOptions {
  readonly model?: string;
  readonly lora?: readonly ChosenLora[];
  readonly class?: string;
  readonly negative?: string;
  readonly seed?: number;
  readonly steps?: number;
  readonly guidance?: number;
  readonly guidedChannels?: number;
  readonly size?: readonly [height: number, width: number];
  readonly count: number;
  readonly sampler?: string;
  readonly memory?: number;
  readonly device: string;
  readonly out?: string;
  readonly grid?: true;
  readonly fromImage?: string;
  readonly json?: true;
}

const defaultModel = "emoji";
const defaultFile = "picture.png";

export function addGenerate(program: Command): void {
  addSamplingOptions(addModelOptions(addLoraOption(program.command("generate"))))
    .summary("draw pictures of a prompt or class")
    .description(
      "Draws with a trained model. A model is the name of one that comes along, a folder that patchwise train wrote, a " +
        "folder in diffusers' layout (DiTPipeline, StableDiffusion3Pipeline), or a .safetensors file: Stable Diffusion 3, or " +
        "facebookresearch/DiT with --vae; or one of these on the Hugging Face Hub, as owner/name, owner/name@revision or " +
        "owner/name:file.safetensors.",
    )
    .argument("[prompt]", "what to draw, for models that take prompts")
    .option("--model <name|dir|file|id>", `model to draw with (default: ${defaultModel})`)
    .option("--class <name|number>", "what to draw, for models that know classes")
    .option("--negative <text>", "what guidance leads away from: a prompt, or a class")
    .option("--seed <n>", "of the first picture; a random one unless given", numberOption("--seed"))
    .option("--steps <n>", "sampling steps; the model's own unless given", numberOption("--steps"))
    .option(
      "--guidance <g>",
      "how far to go beyond what is drawn without a condition; 1 is no guidance",
      numberOption("--guidance"),
    )
    .option(
      "--guided-channels <n>",
      "channels that guidance counts for, from the first",
      numberOption("--guided-channels"),
    )
    .option("--size <WxH>", "in pixels; the model's own unless given", sizeOption)
    .option("--count <n>", "pictures, of seeds that follow one another", numberOption("--count"), 1)
    .option("--sampler <name>", [...Object.keys(samplers), tokenSampler].join(", "))
    .option(
      "--memory <GiB>",
      "to stay below; unless given, what the machine has left",
      numberOption("--memory"),
    )
    .option("--device <name>", deviceNames, "cpu")
    .option(
      "--out <file>",
      `.png, .jpg, .webp or .gif; several pictures are numbered (default: ${defaultFile}, or the next free name)`,
    )
    .option("--grid", "write all pictures side by side too")
    .option("--from-image <file>", "take the settings of a picture that was drawn before")
    .option(
      "--json",
      "print one JSON object: { files, seeds, model, steps, guidance, sampler, size, seconds, … }",
    )
    .action(generate);
}

async function generate(prompt: string | undefined, options: GenerateOptions): Promise<void> {
  const recorded = options.fromImage ? await readPictureMetadata(options.fromImage) : undefined;
  const request = await requestOf(prompt, options, recorded);
  const source = await sourceOf(options, recorded);
  if (options.out !== undefined) pictureFormat(options.out);

  const stopped = new AbortController();
  // A second Ctrl-C is answered by Node itself, at once.
  const stop = () => stopped.abort();
  process.once("SIGINT", stop).once("SIGTERM", stop);
  try {
    await onDevice(options.device, async (device) => {
      const pipeline = await showingDownload(source, (onProgress) =>
        openPipeline(source, {
          ...modelOptions(options),
          loras: options.lora ?? recorded?.loras,
          device,
          memory: options.memory === undefined ? undefined : options.memory * 2 ** 30,
          hub: { onProgress, signal: stopped.signal },
        }),
      );
      try {
        await draw(pipeline, { ...request, signal: stopped.signal }, options);
      } finally {
        await pipeline.dispose();
      }
    });
  } catch (error) {
    if (!stopped.signal.aborted) throw error;
    process.stderr.write("Stopped; nothing was written.\n");
    process.exitCode = 130;
  } finally {
    process.off("SIGINT", stop).off("SIGTERM", stop);
  }
}

/** What was typed, and for the rest what a picture says of itself. */
async function requestOf(
  prompt: string | undefined,
  options: GenerateOptions,
  recorded: PictureMetadata | undefined,
): Promise<GenerateRequest> {
  const { negative, steps, guidance, guidedChannels, size, sampler, count } = options;
  const told =
    prompt === undefined && options.class === undefined
      ? { prompt: recorded?.prompt, class: recorded?.class }
      : { prompt, class: options.class };
  return {
    ...told,
    negative: negative ?? recorded?.negative,
    seed: options.seed ?? recorded?.seed ?? randomInt(2 ** 32),
    steps: steps ?? recorded?.steps,
    guidance: guidance ?? recorded?.guidance,
    guidedChannels: guidedChannels ?? recorded?.guidedChannels,
    size: size ?? recorded?.size,
    sampler: sampler ?? recorded?.sampler,
    ...(await samplingRequest(options, recorded)),
    count,
  };
}

async function sourceOf(
  { model, fromImage }: GenerateOptions,
  recorded: PictureMetadata | undefined,
): Promise<string> {
  if (model !== undefined) return model;
  if (!recorded) return defaultModel;
  if ((await shippedModels()).includes(recorded.model)) return recorded.model;
  throw new UsageError(
    `${fromImage} was drawn with the model ${quote(recorded.model)}, which does not come along; give its folder or file as --model.`,
  );
}

async function draw(
  pipeline: Pipeline,
  request: GenerateRequest,
  options: GenerateOptions,
): Promise<void> {
  const settings = pipeline.settings(request);
  const { seed, count } = settings;
  const filesOf = (path: string) => [
    ...numbered(path, count),
    ...(options.grid ? [withSuffix(path, "grid")] : []),
  ];
  const path = options.out ?? (await unusedName(defaultFile, filesOf));
  await checkWritable(filesOf(path));
  for (const warning of settings.warnings) process.stderr.write(`Warning: ${warning}\n`);

  const begun = performance.now();
  const elapsed = () => (performance.now() - begun) / 1000;
  const pictures = await drawn(pipeline, { ...request, ...settings }, elapsed);
  const seconds = elapsed();

  const files = numbered(path, count);
  for (const [i, file] of files.entries()) {
    await writePicture(file, pictures[i]!, metadataOf(settings, pictures[i]!, pipeline));
  }
  const sheet = pictureGrid(pictures, Math.ceil(Math.sqrt(count)));
  const grid = options.grid ? withSuffix(path, "grid") : undefined;
  if (grid !== undefined) await writePicture(grid, sheet);

  if (options.json) {
    const { warnings, seed: _, count: __, ...decided } = settings;
    const seeds = pictures.map((picture) => picture.seed);
    const told = { files, seeds, model: pipeline.name, ...decided, seconds, warnings };
    process.stdout.write(`${JSON.stringify(grid === undefined ? told : { ...told, grid })}\n`);
    return;
  }
  await showPicture(sheet, process.stdout);
  for (const file of grid === undefined ? files : [...files, grid]) {
    process.stdout.write(`${file}\n`);
  }
  const seeds = count === 1 ? `seed ${seed}` : `seeds ${seed} to ${seed + count - 1}`;
  process.stderr.write(`Drawn in ${seconds.toFixed(1)} s with ${seeds}.\n`);
}

/** Draws, with a line that tells how far it is. */
async function drawn(
  pipeline: Pipeline,
  request: GenerateRequest,
  elapsed: () => number,
): Promise<readonly DrawnPicture[]> {
  const progress = progressWriter(process.stderr);
  const generation = pipeline.generate(request);
  progress.update(`${pipeline.name}: opening`);
  try {
    for (;;) {
      const next = await generation.next();
      if (next.done) return next.value;
      const { step, steps } = next.value;
      const left = (elapsed() * (steps - step)) / step;
      progress.update(`${pipeline.name}: step ${step} of ${steps}, ${left.toFixed(0)} s left`);
    }
  } finally {
    progress.end();
  }
}

function metadataOf(
  settings: GenerateSettings,
  { seed }: DrawnPicture,
  { name }: Pipeline,
): PictureMetadata {
  return pictureMetadataSchema.parse({ ...settings, seed, model: name, version });
}
