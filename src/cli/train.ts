/**
 * patchwise train CONFIG.yaml: trains a model, a LoRA or an autoencoder on pictures.
 */
import { basename, extname, join } from "node:path";
import type { Command } from "commander";
import { counted, firstOf, UsageError } from "../engine/errors.ts";
import { openModel } from "../pipelines/open/open-node.ts";
import { nodeBackend } from "../engine/runtime/ort-node.ts";
import { readTrainingConfig } from "../training/config/config-file.ts";
import { type TrainingEvent } from "../training/loop.ts";
import type { Collective } from "../training/collective/collective.ts";
import { train } from "../training/run/train-node.ts";
import { closing } from "../weights/sources/closing.ts";
import { readRegularText } from "../weights/sources/read-node.ts";
import { system } from "../weights/sources/system-error-node.ts";
import {
  duration,
  encodingLine,
  progressLine,
  progressWriter,
  type ProgressWriter,
} from "./progress.ts";
import { deviceNames, onDevice } from "./options.ts";
import { drawSamples } from "../pipelines/training-samples.ts";
import { asRank } from "./ranks.ts";
import { untilSignal } from "./signals.ts";
import { writeJsonLine } from "./terminal.ts";

interface TrainCommandOptions {
  readonly out?: string;
  readonly resume?: true;
  readonly changedData?: true;
  readonly set?: readonly string[];
  readonly device: string;
  readonly json?: true;
}

export function addTrain(program: Command): void {
  program
    .command("train")
    .summary("train a model, a LoRA or an autoencoder on pictures, as configured by a YAML file")
    .description(
      "Trains a diffusion transformer on a folder of pictures, and writes a folder that patchwise generate draws with. " +
        "With `base` and `lora` in the file, it trains a LoRA on a model, for patchwise generate --lora; " +
        "with `autoencoder`, an autoencoder or a VQGAN, which other configs can name as latents.autoencoder. " +
        "Ctrl-C writes a checkpoint and stops; --resume continues, with the same result as an uninterrupted run.",
    )
    .argument(
      "<config>",
      "YAML file: data, picture, model, diffusion, training; or base, lora, data, training; or autoencoder, data, picture, training",
    )
    .option(
      "--out <dir>",
      "folder for checkpoints and the model (default: runs/NAME, by the file's name)",
    )
    .option("--resume", "resume the training in the folder")
    .option("--changed-data", "resume although pictures or captions have changed")
    .option(
      "--set <key.path=value>",
      "override a field of the file; can be given several times",
      collect,
    )
    .option("--device <name>", deviceNames, "cpu")
    .option(
      "--json",
      "print one JSON object at the end: { out, steps, seconds, loss, finished, skipped }",
    )
    .action((file: string, options: TrainCommandOptions) =>
      asRank((collective) => trainCommand(file, options, collective)),
    );
}

async function trainCommand(
  file: string,
  options: TrainCommandOptions,
  collective: Collective | undefined,
): Promise<void> {
  const config = await readConfig(file, options.set);
  if (options.out === "") throw new UsageError("--out is empty; name the folder to write.");
  const out = options.out ?? join("runs", config.name ?? basename(file, extname(file)));
  const backend = await onDevice(options.device, async (device) => nodeBackend(device));
  // Rank 0 speaks for all.
  const speaks = collective === undefined || collective.rank === 0;
  const progress = progressWriter(speaks ? process.stderr : { write: () => {} });
  /** The prompts or classes of the last samples. */
  let shown: readonly string[] | undefined;
  await untilSignal(
    async (signal, guard) => {
      const result = await train(config, {
        backend,
        out,
        resume: options.resume === true,
        changedData: options.changedData === true,
        draw: drawSamples(backend),
        report: (event) => {
          // Before the first step there is nothing to keep.
          if (event.kind === "step") guard.hold();
          if (event.kind === "samples") shown = event.of;
          reportTraining(progress, event);
        },
        collective,
        signal,
      });
      progress.end();
      const { skipped } = result;
      if (skipped.length > 0) {
        // The reasons were printed when they were found.
        const names = firstOf(
          skipped.map(({ name }) => name),
          5,
        );
        progress.line(`Skipped ${counted(skipped.length, "unreadable picture")}: ${names}`);
      }
      progress.line(
        result.finished
          ? `Trained ${counted(result.steps, "step")} in ${duration(result.seconds)}; ${speaks ? await nextStep(config, out, shown) : ""}`
          : `Stopped after step ${result.steps}; resume with: ${resumption(file, out, options)}`,
      );
      if (options.json && speaks) writeJsonLine(process.stdout, { out, ...result });
      // Shells use 128 + SIGINT for an interrupted process.
      if (!result.finished) process.exitCode = 130;
    },
    { progress },
  );
}

export async function readConfig(
  file: string,
  settings: readonly string[] = [],
  budget?: Parameters<typeof readTrainingConfig>[3],
) {
  const text = await system(`read the config ${file}`, readRegularText(file, 2 ** 20), UsageError);
  return readTrainingConfig(file, text, settings, budget);
}

/** A sentence on how to use the result: a command, or the lines of a config, that work as they stand. */
async function nextStep(
  config: ReturnType<typeof readTrainingConfig>,
  out: string,
  shown: readonly string[] = [],
): Promise<string> {
  if ("autoencoder" in config) {
    const process = config.autoencoder.kind === "vq" ? ", diffusion: { process: tokens }" : "";
    return `train a model on what it encodes by adding to its config: { latents: { autoencoder: ${JSON.stringify(out)} }${process} }`;
  }
  const [model, others] = "lora" in config ? [config.base, ["--lora", out]] : [out, []];
  const { network, classes } = await closing(await openModel(model), async (opened) => opened);
  const subject = {
    text: ["--", shown[0] ?? "a picture"],
    class: [`--class=${shown[0] ?? classes?.keys().next().value ?? "0"}`],
    none: [],
  }[network.condition.kind];
  const words = ["generate", "--model", model, ...others, ...subject];
  return `draw with: ${["patchwise", ...words.map(quotedForShell)].join(" ")}`;
}

export function reportTraining(progress: ProgressWriter, event: TrainingEvent): void {
  switch (event.kind) {
    case "latents":
      progress.line(latentsLine(event));
      break;
    case "encoding":
      progress.update(encodingLine(event));
      break;
    case "start":
      progress.line(
        `${event.step > 0 ? `Resuming after step ${event.step} with` : "Training"} ${event.what === "autoencoder" ? "an" : "a"} ${event.what} of ${counted(event.parameters, "parameter")} on ${counted(event.pictures, "picture")} of ${event.data}; it needs up to ${(event.memory / 2 ** 20).toFixed(0)} MiB of memory.`,
      );
      break;
    case "step":
      progress.update(progressLine(event));
      break;
    case "validation":
      progress.line(validationLine(event));
      break;
    case "samples":
      progress.line(`drew ${event.path}`);
      break;
    case "warning":
      progress.line(`Warning: ${event.message}`);
      break;
    case "note":
      progress.line(event.message);
      break;
    case "checkpoint":
      break;
  }
}

function validationLine({ step, loss, own, measures }: EventOf<"validation">): string {
  const others = Object.entries(measures).map(([name, value]) => shownMeasure(name, value));
  const kind = own ? "loss on training pictures" : "validation loss";
  return [`step ${step}: ${kind} ${loss.toPrecision(4)}`, ...others].join(", ");
}

function shownMeasure(name: string, value: number): string {
  switch (name) {
    case "psnr":
      return `PSNR ${value.toFixed(2)} dB`;
    case "codebookUse":
      return `${(100 * value).toFixed(1)} % of the codebook in use`;
    default:
      return `${name} ${value.toPrecision(4)}`;
  }
}

/** The command that resumes. It repeats what was set on the command line, because the config must be the same. */
function resumption(file: string, out: string, { set = [], device }: TrainCommandOptions): string {
  const settings = set.flatMap((setting) => ["--set", setting]);
  const others = device === "cpu" ? [] : ["--device", device];
  const words = ["train", file, "--out", out, ...settings, ...others, "--resume"];
  return ["patchwise", ...words.map(quotedForShell)].join(" ");
}

/** Quotes a word if a shell would interpret it. */
function quotedForShell(word: string): string {
  return /^[\w./:=@%+,\\-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

type EventOf<K extends TrainingEvent["kind"]> = Extract<TrainingEvent, { kind: K }>;

function latentsLine({ folder, found, pictures, anew }: EventOf<"latents">): string {
  const all = pictures.toLocaleString("en");
  if (anew !== undefined) {
    return `The latents in ${folder} do not match: ${anew}. Encoding all ${all} pictures again.`;
  }
  if (found === pictures) return `Found the latents of all ${all} pictures in ${folder}.`;
  return found === 0
    ? `Encoding ${counted(pictures, "picture")} to latents in ${folder}.`
    : `Encoding the remaining ${(pictures - found).toLocaleString("en")} of ${all} pictures to latents in ${folder}.`;
}

export function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}
