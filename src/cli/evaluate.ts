/** patchwise evaluate MODEL: measures how well a model draws prompts with known answers. */
import { basename, join } from "node:path";
import { packageFile } from "../engine/package-node.ts";
import type { Command } from "commander";
import { contactSheet } from "../comparison/sheets-node.ts";
import { evaluate, type EvaluateEvent, type SeededPrompt } from "../comparison/evaluate-node.ts";
import { evaluationTable } from "../comparison/evaluation-table-node.ts";
import { type EmojiStyle, emojiStyleNames } from "../data/formats/emoji/captions.ts";
import { counted, didYouMean, quote, UsageError } from "../engine/errors.ts";
import { nodeBackend } from "../engine/runtime/ort-node.ts";
import { firstOfEachKind, readPrompts } from "../evaluation/prompts.ts";
import { openPipeline } from "../pipelines/open/open-node.ts";
import { finished } from "../pipelines/pipeline.ts";
import type { OpenModelOptions } from "../pipelines/open/options.ts";
import { closing } from "../weights/sources/closing.ts";
import { readRegularText } from "../weights/sources/read-node.ts";
import { system } from "../weights/sources/system-error-node.ts";
import { addModelOptions, deviceNames, modelOptions, numberOption, onDevice } from "./options.ts";
import { writeResults } from "./output-files.ts";
import { progressWriter } from "./progress.ts";
import { addOptionsOf, requestOf } from "./setting-options.ts";
import { untilSignal } from "./signals.ts";

interface EvaluateCommandOptions extends OpenModelOptions {
  readonly prompts?: string;
  readonly out?: string;
  readonly limit?: number;
  readonly seed: number;
  readonly styles: readonly EmojiStyle[];
  readonly device: string;
  readonly json?: true;
}

/** The prompts that are bundled with the package. */
const shippedPrompts = packageFile("models/prompts/emoji.jsonl");

/** The settings that every prompt is drawn with. */
const drawnWith = ["steps", "guidance", "compute", "cache"] as const;

export function addEvaluate(program: Command): void {
  const command = program
    .command("evaluate")
    .summary("measure how well a model draws prompts whose right answers are known")
    .description(
      "Draws every prompt of a file, and finds the nearest real emoji to each drawing with a classifier that took no part in " +
        "training. Writes one table (evaluation.md, evaluation.json) and one contact sheet (evaluation.png): prompt " +
        "accuracy by language and kind, agreement with requested colours and styles, FID, KID, precision, recall, and the " +
        "distance to the nearest training pictures, each beside the same measure of real pictures. Drawings are saved as " +
        "they are made; after Ctrl-C the same command resumes.",
    )
    .argument("<model>", "a bundled model, a folder or a file, as patchwise generate takes it")
    .option(
      "--prompts <file.jsonl>",
      'JSON lines: {"prompt", "lang": "en" or "zh", "kind", "answers": [emoji hexcodes]} (default: 764 bundled prompts)',
    )
    .option("--out <dir>", "folder of the drawings and results (default: runs/evaluate/MODEL)")
    .option("--limit <n>", "draw only the first n prompts of each kind", numberOption("--limit"))
    .option(
      "--seed <n>",
      "seed of the first prompt; each further prompt has the next seed",
      numberOption("--seed"),
      0,
    )
    .option(
      "--styles <names>",
      "styles that the model was trained on, separated by commas",
      stylesOption,
      ["noto", "flat", "twemoji", "emojione"],
    )
    .option("--device <name>", deviceNames, "cpu")
    .option("--json", "print evaluation.json on stdout at the end");
  addModelOptions(addOptionsOf(drawnWith, command)).action(evaluateCommand);
}

async function evaluateCommand(model: string, options: EvaluateCommandOptions): Promise<void> {
  const { limit, seed, styles, device } = options;
  const { out = join("runs", "evaluate", basename(model).replaceAll(/[^\w.-]/g, "-")) } = options;
  if (limit !== undefined && (!Number.isSafeInteger(limit) || limit < 1)) {
    throw new UsageError(`--limit is ${limit}; give a whole number of at least 1.`);
  }
  const prompts = await promptsOf(options.prompts ?? shippedPrompts, seed, limit);
  const settings = await requestOf(undefined, { ...options }, undefined);
  const progress = progressWriter(process.stderr);
  progress.update(`opening ${model} to draw ${counted(prompts.length, "prompt")}`);
  await untilSignal(
    async (signal, guard) => {
      const pipeline = await onDevice(device, (name) =>
        openPipeline(model, { ...modelOptions(options), device: name }),
      );
      await closing({ close: () => pipeline.dispose() }, async () => {
        const evaluated = await evaluate({
          model,
          prompts,
          draw: async ({ prompt, seed: own }) => {
            const request = { ...settings, prompt, seed: own, signal };
            const [picture] = await finished(pipeline.generate(request));
            return picture!;
          },
          styles,
          backend: nodeBackend("cpu"),
          out,
          report: (event) => {
            guard.hold();
            progress.update(progressOf(event));
          },
          signal,
        });
        progress.end();
        const { evaluation } = evaluated;
        const sheet = await contactSheet(prompts, evaluated);
        const files = [evaluationTable(evaluation), evaluation, sheet] as const;
        progress.line(await writeResults(join(out, "evaluation"), files, options.json));
      });
    },
    { progress, stopped: "Stopped; to resume, repeat the command." },
  );
}

/** Reads the prompts of a file. The seed of a prompt does not depend on the limit. */
async function promptsOf(
  file: string,
  seed: number,
  limit: number | undefined,
): Promise<readonly SeededPrompt[]> {
  const text = await system(`read the prompts ${file}`, readRegularText(file, 2 ** 26), UsageError);
  const all = readPrompts(text, file).map((prompt, i) => ({ ...prompt, seed: seed + i }));
  return limit === undefined ? all : firstOfEachKind(all, limit);
}

function stylesOption(text: string): readonly EmojiStyle[] {
  return text.split(",").map((word) => {
    const name = word.trim();
    const known = emojiStyleNames.find((style) => style === name);
    if (known) return known;
    throw new UsageError(
      `--styles has ${quote(name)}, which is not a style; ${didYouMean(name, emojiStyleNames, "choose from")}`,
    );
  });
}

function progressOf({ kind, done, of, secondsLeft }: EvaluateEvent): string {
  const left = secondsLeft === undefined ? "" : `, ${Math.ceil(secondsLeft / 60)} min left`;
  switch (kind) {
    case "drawing":
      return `drew ${done} of ${counted(of, "prompt")}${left}`;
    case "real":
      return `rasterised ${done} of ${of} real emoji`;
    case "judging":
      return `judged ${done} of ${of} sets of pictures`;
  }
}
