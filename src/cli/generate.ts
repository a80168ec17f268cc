/**
 * patchwise generate PROMPT: pictures of a prompt or class, as files that say how they were drawn.
 */
import { randomInt } from "node:crypto";
import type { Command } from "commander";
import { samplers } from "../diffusion/samplers/index.ts";
import { UsageError } from "../engine/errors.ts";
import { pictureGrid } from "../data/grid.ts";
import { pictureFormat, readPictureMetadata, writePicture } from "../data/picture-file-node.ts";
import { type PictureMetadata, pictureMetadataSchema } from "../data/picture-metadata.ts";
import { openPipeline, shippedModels } from "../pipelines/open-node.ts";
import type {
  DrawnPicture,
  GenerateRequest,
  GenerateSettings,
  Pipeline,
} from "../pipelines/pipeline.ts";
import { quote } from "../weights/json.ts";
import { numberOption, onDevice, deviceNames, sizeOption } from "./options.ts";
import { checkWritable, numbered, unusedName, withSuffix } from "./output-files.ts";
import { progressWriter } from "./progress.ts";
import { showPicture } from "./terminal-picture.ts";
import { version } from "./version.ts";

interface GenerateOptions {
  readonly model?: string;
  readonly class?: string;
  readonly negative?: string;
  readonly seed?: number;
  readonly steps?: number;
  readonly guidance?: number;
  readonly guidedChannels?: number;
  readonly size?: readonly [height: number, width: number];
  readonly count: number;
  readonly sampler?: string;
  readonly vae?: string;
  readonly device: string;
  readonly out?: string;
  readonly grid?: true;
  readonly fromImage?: string;
  readonly json?: true;
}

const defaultModel = "emoji";
const defaultFile = "picture.png";

export function addGenerate(program: Command): void {
  program
    .command("generate")
    .summary("draw pictures of a prompt or class")
    .description(
      "Draws with a trained model. A model is the name of one that comes along, a folder that patchwise train wrote, a " +
        "folder in diffusers' layout (DiTPipeline), or a .safetensors file of facebookresearch/DiT with --vae.",
    )
    .argument("[prompt]", "what to draw, for models that take prompts")
    .option("--model <name|dir|file>", `model to draw with (default: ${defaultModel})`)
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
    .option("--sampler <name>", Object.keys(samplers).join(", "))
    .option("--vae <dir|file>", "Stable Diffusion's autoencoder, for models of latents without one")
    .option("--device <name>", deviceNames, "cpu")
    .option(
      "--out <file>",
      `.png, .webp or .gif; several pictures are numbered (default: ${defaultFile}, or the next free name)`,
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
  const request = requestOf(prompt, options, recorded);
  const source = await sourceOf(options, recorded);
  if (options.out !== undefined) pictureFormat(options.out);

  const stopped = new AbortController();
  // A second Ctrl-C is answered by Node itself, at once.
  const stop = () => stopped.abort();
  process.once("SIGINT", stop).once("SIGTERM", stop);
  try {
    await onDevice(options.device, async (device) => {
      const pipeline = await openPipeline(source, { device, vae: options.vae });
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
function requestOf(
  prompt: string | undefined,
  options: GenerateOptions,
  recorded: PictureMetadata | undefined,
): GenerateRequest {
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
