/** patchwise plan CONFIG: what a training takes at any number of ranks, before anything is rented. */
import { availableParallelism as cores } from "node:os";
import { basename, extname, join } from "node:path";
import type { Command } from "commander";
import { counted, UsageError } from "../engine/errors.ts";
import { availableMemory } from "../engine/runtime/available-memory-node.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { nodeBackend } from "../engine/runtime/ort-node.ts";
import { countElements } from "../engine/passes/cost.ts";
import type { RunConfig } from "../training/config/config.ts";
import { configuredStep, stepsOf } from "../training/configured-step.ts";
import type { Task } from "../training/loop.ts";
import { rankMemory } from "../training/memory.ts";
import { openedTraining } from "../training/run/opened-training-node.ts";
import {
  type LocalRanks,
  measuredCopyRate,
  measuredCopyRates,
  measuredCosts,
} from "../training/scaling/measure-node.ts";
import {
  countedCosts,
  ethernetLatency,
  type Link,
  type PlannedRanks,
  planRanks,
  type RankCosts,
  type SharedMemory,
  rankCounts,
  rowsOfRank,
} from "../training/scaling/plan.ts";
import { writeFileAtomic } from "../weights/sources/atomic-node.ts";
import { deviceNames, numberOption, onDevice } from "./options.ts";
import { checkWritable } from "./output-files.ts";
import { plannedPlot } from "./plan-plot.ts";
import { duration } from "./progress.ts";
import { writeJsonLine, writeText } from "./terminal.ts";
import { collect, readConfig } from "./train.ts";

interface PlanOptions {
  readonly ranks?: string;
  readonly link: number | "local";
  readonly latency: number;
  readonly speed?: number;
  readonly memoryRate?: number;
  readonly pictures?: number;
  readonly price?: number;
  readonly plot?: string;
  readonly set?: readonly string[];
  readonly device: string;
  readonly json?: true;
}

/** The numbers of ranks that are planned unless others are given, as far as they divide the batch. */
const usualRanks = [1, 2, 8, 64, 256, 1024];

export function addPlan(program: Command): void {
  program
    .command("plan")
    .summary("predict what a training takes on many machines")
    .description(
      "Predicts memory, time of a step, efficiency and cost of a training under MPI at several numbers of ranks, from a step that " +
        "is measured on this machine, or from --speed. docs/scale.md describes the model and what it assumes.",
    )
    .argument("<config>", "YAML file as for patchwise train")
    .option(
      "--ranks <n,n>",
      `numbers of ranks; those of ${usualRanks.join(",")} that divide the batch by default`,
    )
    .option(
      "--link <gbit>",
      'Gbit/s between a rank and the others, or "local" for ranks that share this machine\'s memory',
      linkOption,
      10,
    )
    .option(
      "--latency <us>",
      "microseconds of a message between ranks",
      numberOption("--latency"),
      ethernetLatency * 1e6,
    )
    .option(
      "--speed <tflops>",
      "10¹² floating-point operations a second of a rank that is not this machine; nothing is measured then",
      numberOption("--speed"),
    )
    .option(
      "--memory-rate <gb>",
      "10⁹ bytes a second that such a rank copies; those of this machine by default",
      numberOption("--memory-rate"),
    )
    .option(
      "--pictures <n>",
      "pictures to train on; as many as the config says by default, or a million",
      numberOption("--pictures"),
    )
    .option("--price <amount>", "price of a rank for an hour", numberOption("--price"))
    .option("--plot <file.svg>", "draw images a second over ranks")
    .option(
      "--set <key.path=value>",
      "override a field of the file; can be given several times",
      collect,
    )
    .option("--device <name>", deviceNames, "cpu")
    .option("--json", "print one JSON object: { costs, link, pictures, ranks }")
    .action(planCommand);
}

async function planCommand(file: string, options: PlanOptions): Promise<void> {
  requireSensible(options);
  const { link: gigabits, latency, plot, price } = options;
  const given = await readConfig(file, options.set);
  const { batch, accumulate } = given.training;
  const counts =
    options.ranks === undefined
      ? usualRanks.filter(
          (ranks) => batch % ranks === 0 && (gigabits !== "local" || ranks <= cores()),
        )
      : rankCounts(options.ranks);
  // Refused before minutes of measuring.
  for (const ranks of counts) rowsOfRank(ranks, batch);
  if (plot !== undefined) await checkWritable([plot]);
  const link: Link | SharedMemory =
    gigabits === "local"
      ? { copyRates: await measuredCopyRates(onThisMachine(counts)) }
      : { gigabits, latency: latency / 1e6 };
  const backend = await onDevice(options.device, async (device) => nodeBackend(device));
  // Nothing is written there; the folder only names the model.
  const out = join("runs", given.name ?? basename(file, extname(file)));
  const { memory, multiplyAdds, trained, ...costs } = await openedTraining(
    given,
    { backend, out },
    async ({ config: { training }, task }) => {
      const steps = stepsOf(training, task);
      return {
        ...(await costsOf(task, training, backend, options, { given, out, counts })),
        multiplyAdds: task.multiplyAdds(),
        trained: steps && steps * batch * accumulate,
      };
    },
  );
  const pictures = options.pictures ?? trained ?? 1e6;
  const planned = planRanks({ ...costs, memory }, { batch, accumulate }, counts, link);
  const ranks = planned.map((row) => {
    const hours = pictures / row.imagesPerSecond / 3600;
    const rankHours = hours * row.ranks;
    return { ...row, hours, rankHours, ...(price !== undefined && { cost: rankHours * price }) };
  });
  if (plot !== undefined) await writeFileAtomic(plot, Buffer.from(plannedPlot(ranks, link)));
  if (options.json) {
    writeJsonLine(process.stdout, { costs, multiplyAdds, link, pictures, ranks });
    return;
  }
  const size = `${(costs.parameters / 1e6).toFixed(1)}M parameters, ${(multiplyAdds / 1e9).toPrecision(3)} Gflops a picture`;
  writeText(
    process.stdout,
    [
      `${size}, batch ${batch * accumulate}; ${gigabits === "local" ? "ranks that share this machine's memory" : `${gigabits} Gbit/s between ranks`}.`,
      "",
      ...tableOf(ranks, pictures),
      "",
      ...assumptions(options, costs),
      "",
    ].join("\n"),
  );
}

/** Numbers beyond these make plans of infinities. */
const [LEAST, MOST] = [1e-9, 1e15];

/** @throws UsageError */
function requireSensible(options: PlanOptions): void {
  const { link, latency, speed, memoryRate, pictures, price, plot } = options;
  const positive = {
    link: link === "local" ? 1 : link,
    latency,
    speed,
    "memory-rate": memoryRate,
    pictures,
    price,
  };
  for (const [name, value] of Object.entries(positive)) {
    if (value === undefined || (value >= LEAST && value <= MOST)) continue;
    throw new UsageError(
      value > 0
        ? `--${name} is ${value}; give a number from ${LEAST} to ${MOST}.`
        : `--${name} is ${value}; give a number above 0.`,
    );
  }
  if (pictures !== undefined && !Number.isInteger(pictures)) {
    throw new UsageError(`--pictures is ${pictures}; give a whole number.`);
  }
  if (memoryRate !== undefined && speed === undefined) {
    throw new UsageError(
      "--memory-rate belongs to --speed; give both, or none to measure this machine.",
    );
  }
  if (plot !== undefined && extname(plot) !== ".svg") {
    throw new UsageError(`--plot is ${plot}; name a file that ends in .svg.`);
  }
}

/** The costs of a rank: measured here, or counted for a given speed. */
async function costsOf(
  task: Task,
  training: RunConfig["training"],
  backend: Backend,
  { speed, memoryRate, device, link }: PlanOptions,
  ranks: LocalRanks,
): Promise<RankCosts> {
  const step = configuredStep(task, { ...training, accumulate: 1 });
  if (speed === undefined) {
    const available = device === "cpu" ? availableMemory() : undefined;
    // Ranks on devices of their own do not share what the cores do.
    const shared = device === "cpu" && link === "local" ? ranks : undefined;
    return measuredCosts({ backend, step, task, training, available }, shared);
  }
  const parameters = countElements(Object.values(task.trained));
  return countedCosts(
    {
      parameters,
      multiplyAdds: task.multiplyAdds(),
      memory: rankMemory(step, parameters, training),
      shards: training.shardOptimizer,
      localSteps: training.localSteps?.steps,
    },
    speed,
    memoryRate === undefined ? measuredCopyRate() : memoryRate * 1e9,
  );
}

function assumptions(
  { speed, latency, device, link }: PlanOptions,
  { copyRate, localSteps }: Pick<RankCosts, "copyRate" | "localSteps">,
): string[] {
  const how =
    speed === undefined
      ? `steps measured on this machine's ${device} now, which other work on it may slow`
      : `${speed} Tflop/s in every product, and ${(copyRate / 1e9).toPrecision(2)} GB/s where gradients, weights and moments are copied`;
  const where =
    link === "local"
      ? "every rank on cores of its own of this machine, whose memory they share"
      : `every rank on such a machine, with a link of its own at 90 % of its rate and ${latency} µs a message`;
  const order = localSteps
    ? `steps of each rank alone, and a meeting after every ${localSteps}`
    : "gradient, all-reduce and update one after another, as patchwise train runs them";
  return [
    `It assumes: ${how}; ${where};`,
    `${order}; pictures that are read in time; no rank slower than the others.`,
  ];
}

/** @throws UsageError */
function linkOption(text: string): PlanOptions["link"] {
  return text === "local" ? text : numberOption("--link")(text);
}

/** @throws UsageError if there are more ranks than cores */
function onThisMachine(counts: readonly number[]): readonly number[] {
  const most = Math.max(...counts);
  if (most <= cores()) return counts;
  throw new UsageError(
    `--link local is for ranks that share this machine, which has ${counted(cores(), "core")}, but --ranks names ${most}; give fewer, or the Gbit/s between machines as --link.`,
  );
}

type PricedRanks = PlannedRanks & {
  readonly hours: number;
  readonly rankHours: number;
  readonly cost?: number;
};

function tableOf(rows: readonly PricedRanks[], pictures: number): string[] {
  const priced = rows.some(({ cost }) => cost !== undefined);
  const heads = [
    "ranks",
    "rows",
    "memory",
    "step",
    "all-reduce",
    "images/s",
    "efficiency",
    `${pictures.toLocaleString("en")} pictures`,
    "rank-hours",
    ...(priced ? ["cost"] : []),
  ];
  const cells = rows.map((row) => [
    String(row.ranks),
    String(row.rows),
    `${(row.memoryBytes / 2 ** 30).toFixed(2)} GiB`,
    shortTime(row.stepSeconds),
    row.ranks === 1 ? "–" : shortTime(row.reduceSeconds),
    row.imagesPerSecond.toPrecision(3),
    `${(100 * row.efficiency).toFixed(0)} %`,
    duration(row.hours * 3600),
    row.rankHours.toPrecision(3),
    ...(priced ? [row.cost!.toFixed(2)] : []),
  ]);
  const widths = heads.map((head, i) =>
    Math.max(head.length, ...cells.map((row) => row[i]!.length)),
  );
  return [heads, ...cells].map((row) => row.map((cell, i) => cell.padStart(widths[i]!)).join("  "));
}

function shortTime(seconds: number): string {
  return seconds < 1 ? `${(1000 * seconds).toPrecision(3)} ms` : `${seconds.toPrecision(3)} s`;
}
