/**
 * patchwise compare CONFIG…: trains several models on the same data with the same budget, and compares them in one table and
 * one picture.
 */
import { basename, extname, join } from "node:path";
import type { Command } from "commander";
import { titledGrids } from "../comparison/sheets-node.ts";
import { counted, UsageError } from "../engine/errors.ts";
import { nodeBackend } from "../engine/runtime/ort-node.ts";
import { comparisonTable } from "../comparison/table.ts";
import type { TimeEstimate } from "../comparison/estimate.ts";
import { compare, type CompareEvent } from "../comparison/compare-node.ts";
import { budgetOf, contendersOf } from "../comparison/contenders.ts";
import { duration, progressLine, progressWriter, type ProgressWriter } from "./progress.ts";
import { untilSignal } from "./signals.ts";
import { writeResults } from "./output-files.ts";
import { deviceNames, numberOption, onDevice } from "./options.ts";
import { drawSamples } from "../pipelines/training-samples.ts";
import { collect, readConfig, reportTraining } from "./train.ts";

interface CompareCommandOptions {
  readonly out: string;
  readonly minutes?: number;
  readonly compute?: number;
  readonly count: number;
  readonly resume?: true;
  readonly set?: readonly string[];
  readonly device: string;
  readonly json?: true;
}

export function addCompare(program: Command): void {
  program
    .command("compare")
    .summary("train several models on the same pictures, and measure them against each other")
    .description(
      "Trains each config for the same time or compute, draws with each model, and writes one table (compare.md, " +
        "compare.json) and one picture (compare.png): parameters, Gflops, loss, FID and KID with the extractor named in " +
        "the table, seconds per image, and samples with the same seeds. Ctrl-C keeps finished parts; --resume continues.",
    )
    .argument("<configs...>", "YAML files as for patchwise train, with the same data")
    .option("--out <dir>", "folder of the comparison, with a folder for each model", "runs/compare")
    .option("--minutes <n>", "minutes to train each model", numberOption("--minutes"))
    .option(
      "--compute <tflop>",
      "compute to train each model, in 10¹² multiply-adds: three forward passes for each image",
      numberOption("--compute"),
    )
    .option("--count <n>", "pictures that each model draws", numberOption("--count"), 1000)
    .option("--resume", "resume the comparison in the folder")
    .option(
      "--set <key.path=value>",
      "override a field of every file; can be given several times",
      collect,
    )
    .option("--device <name>", deviceNames, "cpu")
    .option("--json", "print the contents of compare.json to stdout")
    .action(compareCommand);
}

async function compareCommand(
  files: readonly string[],
  options: CompareCommandOptions,
): Promise<void> {
  const { out, count, minutes, compute, resume = false } = options;
  if (!Number.isSafeInteger(count) || count < 4) {
    throw new UsageError(`--count is ${count}; give a whole number of at least 4.`);
  }
  const budget = budgetOf({ minutes, compute });
  const configs = [];
  for (const file of files) {
    const config = await readConfig(file, options.set, budget);
    configs.push({ name: config.name ?? basename(file, extname(file)), file, config });
  }
  const contenders = contendersOf(configs, budget);
  const backend = await onDevice(options.device, async (device) => nodeBackend(device));
  const progress = progressWriter(process.stderr);
  await untilSignal(
    async (signal, guard) => {
      guard.hold();
      const report = (event: CompareEvent) => {
        // A training has nothing to keep until its first step, and other models are kept already.
        if (event.kind === "training" && event.event.kind === "start") guard.release();
        else guard.hold();
        reportComparison(progress, event);
      };
      const draw = drawSamples(backend);
      const run = { backend, out, resume, count, draw, report, signal };
      const compared = await compare(contenders, run);
      progress.end();
      if (!compared) {
        progress.line("Stopped; to resume, repeat the command with --resume.");
        process.exitCode = 130;
        return;
      }
      const { comparison, samples } = compared;
      const results = [
        comparisonTable(comparison),
        comparison,
        await titledGrids(samples),
      ] as const;
      progress.line(await writeResults(join(out, "compare"), results, options.json));
    },
    { progress },
  );
}

function reportComparison(progress: ProgressWriter, event: CompareEvent): void {
  switch (event.kind) {
    case "estimate":
      progress.line(estimateLine(event.time));
      break;
    case "extractor":
      progress.update(`extractor: ${progressLine(event.progress)}`);
      break;
    case "model":
      progress.line(`${event.name}:`);
      break;
    case "training":
      reportTraining(progress, event.event);
      break;
    case "drawing":
      progress.update(`drew ${event.done} of ${counted(event.of, "picture")}`);
      break;
    case "measured":
      progress.line(`${event.model.name}: FID ${event.model.fid.toPrecision(3)}`);
      break;
  }
}

/** @example estimateLine({ extractor: 60, models: [{ name: "plain", training: 600, drawing: 60 }] }) // "This takes about 12 min 0 s: 1 min 0 s for the extractor; 10 min 0 s to train plain, and 1 min 0 s to draw with it." */
export function estimateLine({ extractor, models }: TimeEstimate): string {
  const total = models.reduce((sum, { training, drawing }) => sum + training + drawing, extractor);
  const parts = [
    ...(extractor > 0 ? [`${about(extractor)} for the extractor`] : []),
    ...models.flatMap(({ name, training, drawing }) => {
      if (training > 0)
        return [`${about(training)} to train ${name}, and ${about(drawing)} to draw with it`];
      return drawing > 0 ? [`${about(drawing)} to draw with ${name}`] : [];
    }),
  ];
  if (parts.length === 0) return "All models are trained and measured already.";
  return `This takes about ${about(total)}: ${parts.join("; ")}.`;
}

/** A duration in words, of at least a second, since it is only an estimate. */
function about(seconds: number): string {
  return duration(Math.max(1, seconds));
}
