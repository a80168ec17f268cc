/**
 * patchwise generate PROMPT: draws pictures of a prompt or class, and writes them as files that record how they were drawn.
 */
import { randomInt } from "node:crypto";
import { extname } from "node:path";
import type { Command } from "commander";
import { quote, UsageError } from "../engine/errors.ts";
import { shippedModels } from "../models/card-node.ts";
import { pictureFormat, readPictureMetadata, writePicture } from "../pictures/file-node.ts";
import { clipFormat, isFilm, writeClip } from "../pictures/clip-file-node.ts";
import { requireFfmpeg } from "../pictures/ffmpeg-node.ts";
import type { Picture } from "../pictures/picture.ts";
import { clipSheet, pictureGrid } from "../pictures/grid.ts";
import type { PictureMetadata } from "../pictures/metadata.ts";
import type { DrawingProgress } from "../pipelines/compute.ts";
import type { ChosenLora } from "../pipelines/open/lora-node.ts";
import { openPipeline } from "../pipelines/open/open-node.ts";
import type { OpenModelOptions } from "../pipelines/open/options.ts";
import { psnr } from "../evaluation/psnr.ts";
import { type DrawnPicture, finished, type Pipeline } from "../pipelines/pipeline.ts";
import { type GenerateRequest, recordedSettings, settings } from "../pipelines/settings.ts";
import { showingDownload } from "./download-progress.ts";
import {
  addLoraOption,
  addModelOptions,
  deviceNames,
  modelOptions,
  numberOption,
  onDevice,
} from "./options.ts";
import { checkWritable, numbered, unusedName, withSuffix } from "./output-files.ts";
import { progressWriter } from "./progress.ts";
import { type SignalGuard, untilSignal } from "./signals.ts";
import { addSettingOptions, type OptionValues, requestOf } from "./setting-options.ts";
import { closing } from "../weights/sources/closing.ts";
import { showPicture } from "./terminal-picture.ts";
import { version } from "./version.ts";
import { writeJsonLine, writeLine } from "./terminal.ts";

interface GenerateOptions extends OpenModelOptions {
  readonly model?: string;
  readonly lora?: readonly ChosenLora[];
  readonly memory?: number;
  readonly device: string;
  readonly out?: string;
  readonly grid?: true;
  readonly fromImage?: string;
  readonly compareExact?: true;
  readonly json?: true;
}

const defaultModel = "emoji";
const defaultFile = "picture.png";
const defaultClip = "clip.webp";

export function addGenerate(program: Command): void {
  const command = program
    .command("generate")
    .summary("draw pictures of a prompt or class")
    .description(
      "Draws pictures with a trained model, which --model names. It is one of: a bundled model, by its name; a folder that " +
        "patchwise train wrote; a folder in diffusers' layout, or one of ComfyUI; a .safetensors or .gguf file, for models of " +
        "latents with --vae; a model on the Hugging Face Hub, as owner/name, owner/name@revision or " +
        "owner/name:file.safetensors. docs/draw.md lists the models.",
    )
    .argument("[prompt]", settings.prompt.help)
    .option("--model <name|dir|file|id>", `model to draw with (default: ${defaultModel})`);
  addModelOptions(addLoraOption(addSettingOptions(command)))
    .option(
      "--memory <GiB>",
      "memory limit; the machine's available memory by default",
      numberOption("--memory"),
    )
    .option("--device <name>", deviceNames, "cpu")
    .option(
      "--out <file>",
      `.png, .jpg, .webp or .gif, and for clips .webp, .gif, an animated .png, or .mp4 or .webm by an installed ffmpeg; several are numbered (default: ${defaultFile} or ${defaultClip}, or the next free name)`,
    )
    .option("--grid", "also write all pictures side by side, or the frames of clips")
    .option("--from-image <file>", "take the settings that a drawn picture records")
    .option(
      "--compare-exact",
      "with --json, also draw without --cache and --compute, and state how near each picture is (psnr, in dB)",
    )
    .option(
      "--json",
      "print one JSON object: { files, seeds, model, steps, guidance, sampler, width, height, size: [height, width], seconds, … }",
    )
    .action(generate);
}

async function generate(
  prompt: string | undefined,
  options: GenerateOptions & OptionValues,
): Promise<void> {
  const recorded = options.fromImage ? await readPictureMetadata(options.fromImage) : undefined;
  const asked = await requestOf(prompt, options, recorded);
  const request = { ...asked, seed: asked.seed ?? randomInt(2 ** 32) };
  const source = await sourceOf(options, recorded);
  if (options.out !== undefined && isFilm(options.out)) await requireFfmpeg(options.out);
  else if (options.out !== undefined) pictureFormat(options.out);
  // What a clip cannot be written to is known before the model is opened.
  if (options.out !== undefined && (request.frames ?? 1) > 1) clipFormat(options.out);

  await untilSignal(
    async (signal, guard) => {
      await onDevice(options.device, async (device) => {
        const pipeline = await showingDownload(source, (onProgress) =>
          openPipeline(source, {
            ...modelOptions(options),
            loras: options.lora ?? recorded?.loras,
            device,
            memory: options.memory === undefined ? undefined : options.memory * 2 ** 30,
            hub: { onProgress },
          }),
        );
        await closing({ close: () => pipeline.dispose() }, () =>
          draw(pipeline, { ...request, signal }, options, guard),
        );
      });
    },
    { stopped: "Stopped; nothing was written." },
  );
}

async function sourceOf(
  { model, fromImage }: GenerateOptions,
  recorded: PictureMetadata | undefined,
): Promise<string> {
  if (model !== undefined) return model;
  if (!recorded) return defaultModel;
  if ((await shippedModels()).includes(recorded.model)) return recorded.model;
  throw new UsageError(
    `${fromImage} was drawn with the model ${quote(recorded.model)}, which is not a bundled one; give its folder or file as --model.`,
  );
}

async function draw(
  pipeline: Pipeline,
  request: GenerateRequest,
  options: GenerateOptions,
  guard: SignalGuard,
): Promise<void> {
  const resolved = pipeline.settings(request);
  const { seed, count, width, height } = resolved;
  const filesOf = (path: string) => [
    ...numbered(path, count),
    ...(options.grid ? [gridName(path)] : []),
  ];
  const { frames, fps } = resolved;
  const path =
    options.out ?? (await unusedName(frames === undefined ? defaultFile : defaultClip, filesOf));
  if (frames === undefined) pictureFormat(path);
  else clipFormat(path);
  await checkWritable(filesOf(path));
  for (const warning of resolved.warnings) writeLine(process.stderr, `Warning: ${warning}`);

  const begun = performance.now();
  const elapsed = () => (performance.now() - begun) / 1000;
  const whole = { ...request, ...resolved };
  const { pictures, cached, steps } = await drawn(pipeline, whole, elapsed, guard);
  const seconds = elapsed();

  const files = numbered(path, count);
  for (const [i, file] of files.entries()) {
    const picture = pictures[i]!;
    const recording = recordedSettings(resolved, picture.seed);
    const metadata = { ...recording, model: pipeline.name, version };
    if (picture.clip) await writeClip(file, picture.clip, fps!, metadata);
    else await writePicture(file, picture, metadata);
  }
  const sheet = sheetOf(pictures);
  const grid = options.grid ? gridName(path) : undefined;
  if (grid !== undefined) await writePicture(grid, sheet);

  if (options.json) {
    const { seed: _, ...recording } = recordedSettings(resolved, seed);
    const seeds = pictures.map((picture) => picture.seed);
    const { warnings } = resolved;
    const size = [height, width];
    // Of a picture that is given, only the last steps are drawn.
    const part = resolved.strength !== undefined && { steps, ofSteps: resolved.steps };
    const about = { files, seeds, model: pipeline.name, ...recording, ...part };
    const report = { ...about, size, seconds, warnings };
    const exact = options.compareExact && { ...whole, cache: undefined, compute: undefined };
    const compared = exact && (await drawn(pipeline, exact, elapsed, guard)).pictures;
    writeJsonLine(process.stdout, {
      ...report,
      ...(cached && { cached }),
      ...(compared && { psnr: compared.map((picture, i) => psnrShown(pictures[i]!, picture)) }),
      ...(grid !== undefined && { grid }),
    });
    return;
  }
  await showPicture(sheet, process.stdout);
  for (const file of grid === undefined ? files : [...files, grid]) {
    writeLine(process.stdout, file);
  }
  const seeds = count === 1 ? `seed ${seed}` : `seeds ${seed} to ${seed + count - 1}`;
  writeLine(process.stderr, `Drawn in ${seconds.toFixed(1)} s with ${seeds}.`);
}

/** The name of the sheet beside a file; a film has none of its own format. */
function gridName(path: string): string {
  return withSuffix(isFilm(path) ? `${path.slice(0, -extname(path).length)}.png` : path, "grid");
}

/** The PSNR of two pictures in dB to a hundredth; null if they are equal, since JSON has no infinity. */
function psnrShown(a: Picture, b: Picture): number | null {
  const decibels = psnr(a, b);
  return Number.isFinite(decibels) ? Math.round(100 * decibels) / 100 : null;
}

/** All pictures in a square, or of clips the frames, one row a clip. */
function sheetOf(pictures: readonly DrawnPicture[]): Picture {
  const clips = pictures.flatMap(({ clip }) => clip ?? []);
  return clips.length === 0
    ? pictureGrid(pictures, Math.ceil(Math.sqrt(pictures.length)))
    : clipSheet(clips);
}

/** Draws and shows the progress as a line. */
async function drawn(
  pipeline: Pipeline,
  request: GenerateRequest,
  elapsed: () => number,
  guard: SignalGuard,
): Promise<Pick<DrawingProgress, "cached" | "steps"> & { pictures: readonly DrawnPicture[] }> {
  const progress = progressWriter(process.stderr);
  progress.update(`${pipeline.name}: opening`);
  let last = elapsed();
  let cached: DrawingProgress["cached"];
  let ran = request.steps ?? 0;
  const onProgress = (at: DrawingProgress) => {
    const { step, steps } = at;
    cached = at.cached;
    ran = steps;
    const now = elapsed();
    const left = (now * (steps - step)) / step;
    // Long steps would keep a signal waiting.
    if (now - last < 1 && step < steps) guard.hold();
    else guard.release();
    last = now;
    progress.update(`${pipeline.name}: step ${step} of ${steps}, ${left.toFixed(0)} s left`);
  };
  try {
    const pictures = await finished(pipeline.generate({ ...request, onProgress }));
    return { pictures, cached, steps: ran };
  } finally {
    progress.end();
  }
}
