/** patchwise draw-many FILE: draws a picture for each line of a file of prompts. */
import { join } from "node:path";
import { type Command, Option } from "commander";
import type { Drawer } from "../bulk/drawer.ts";
import { pictureFolder, removeUnfinished } from "../bulk/folder.ts";
import { promptLines, type PromptLine, singleSettings } from "../bulk/lines.ts";
import { modelDigest } from "../pipelines/open/model-digest-node.ts";
import type { Job } from "../bulk/queue/board.ts";
import { hasWorkers, queueDrawer } from "../bulk/queue/producer.ts";
import { drawLines, type LinesProgress } from "../bulk/run.ts";
import { keepModel } from "../bulk/same-model.ts";
import { packShards, requirePictures, type ShardKind, shardKinds } from "../bulk/shards.ts";
import { type LineFailure, plannedLines } from "../bulk/tasks.ts";
import { counted, FormatError, UsageError } from "../engine/errors.ts";
import type { Pipeline } from "../pipelines/pipeline.ts";
import { openQueue } from "../queue/connection-node.ts";
import { closing } from "../weights/sources/closing.ts";
import { lockFolder } from "../weights/sources/lock-node.ts";
import { readRegularFile } from "../weights/sources/read-node.ts";
import { makeFolders, system } from "../weights/sources/system-error-node.ts";
import {
  addBulkOptions,
  type BulkOptions,
  localDrawer,
  openingOptions,
  withPipeline,
} from "./bulk-options.ts";
import { onDevice } from "./options.ts";
import { checkWritable } from "./output-files.ts";
import { drawingLine, duration, type ProgressWriter, progressWriter } from "./progress.ts";
import { addOptionsOf, addSizeOption, type OptionValues, requestOf } from "./setting-options.ts";
import { wholeOption } from "./server-options.ts";
import { untilSignal } from "./signals.ts";
import { writeJsonLine, writeLine } from "./terminal.ts";
import { version } from "./version.ts";

interface DrawManyOptions extends BulkOptions {
  readonly out: string;
  readonly queue?: string;
  readonly shards?: ShardKind;
  readonly shardSize: number;
  readonly json?: true;
}

export function addDrawMany(program: Command): void {
  const command = program
    .command("draw-many")
    .summary("draw a picture for each line of a file")
    .description(
      "Draws a picture for each line of a file of prompts. A line of a .jsonl file is an object such as " +
        '{"prompt": "red heart", "seed": 7, "size": "64x48", "name": "heart"}, with any setting of a drawing; a line of a .txt file is a ' +
        "prompt. The options below are for lines that do not say otherwise. A second run draws only what is missing or has changed.",
    )
    .argument("<file>", "file of prompts, .jsonl or .txt")
    .requiredOption(
      "--out <dir>",
      "folder of the pictures, which are named by the line: its name, or its number",
    );
  addBulkOptions(addSizeOption(addOptionsOf(singleSettings, command)))
    .option(
      "--queue <url>",
      "have the pictures drawn by patchwise draw-worker on any machine, through a NATS server such as nats://127.0.0.1:4222",
    )
    .addOption(
      new Option(
        "--shards <kind>",
        "also pack the pictures with their prompts to train on, into the folder shards below that of the pictures",
      ).choices(shardKinds),
    )
    .option("--shard-size <n>", "pictures in a shard", wholeOption("--shard-size"), 1000)
    .option(
      "--json",
      "print one JSON object: { out, model, pictures, kept, drawn, failed: [{ line, name, error }], seconds, shards }",
    )
    .action(drawMany);
}

async function drawMany(file: string, options: DrawManyOptions & OptionValues): Promise<void> {
  const defaults = await requestOf(undefined, options, undefined);
  const lines = promptLines(await textOf(file), file, defaults);
  const { out } = options;
  await system(`make the folder ${out}`, makeFolders(out), UsageError);
  const progress = progressWriter(process.stderr);
  let last: LinesProgress | undefined;
  await checkWritable([join(out, "draw-many.json")]);
  await closing(await lockFolder(out), async () => {
    await removeUnfinished(out);
    await untilSignal(
      async (signal, guard) => {
        guard.hold();
        const shown = (at: LinesProgress) => {
          last = at;
          progress.update(lineOf(at));
        };
        await draw(lines, { ...options, file }, { signal, shown, progress });
      },
      { progress },
    ).catch((error: unknown) => {
      if ((error as Error).name !== "AbortError") throw error;
      const there = last ? last.kept + last.drawn : 0;
      writeLine(
        process.stderr,
        `Stopped; ${there} of ${counted(lines.length, "picture")} are in ${out}, and the same command draws the rest.`,
      );
      process.exitCode = 130;
    });
  });
}

/** How a run reports its progress, and the signal that ends it. */
interface Watched {
  readonly signal: AbortSignal;
  readonly shown: (at: LinesProgress) => void;
  readonly progress: ProgressWriter;
}

async function draw(
  lines: readonly PromptLine[],
  options: DrawManyOptions & { readonly file: string },
  { signal, shown, progress }: Watched,
): Promise<void> {
  const { out } = options;
  const report = await onDevice(options.device, () =>
    withPipeline(options, async (pipeline) => {
      const by = { model: pipeline.name, version };
      const { tasks, failures, warnings } = plannedLines(lines, pipeline, by);
      if (options.shards) requirePictures(tasks);
      tellSome(warnings, (text) => progress.line(`Warning: ${text}`));
      const digest = await modelDigest(options.model, openingOptions(options));
      const job = await keepModel(out, { model: pipeline.name, digest });
      const about = { ...by, digest, pictures: lines.length };
      const drawing = { by, signal, onProgress: shown };
      const run = await withDrawer({ options, pipeline, job, about, progress }, (drawer) =>
        drawLines(tasks, drawer, pictureFolder(out), drawing),
      );
      const missing = new Set(run.failures.map(({ line }) => line));
      const there = tasks.filter(({ line }) => !missing.has(line));
      const shards =
        options.shards && (await packShards(out, there, options.shards, options.shardSize));
      return { ...run, model: pipeline.name, failures: [...failures, ...run.failures], shards };
    }),
  );
  progress.end();
  tell(report, lines.length, options);
}

/** The options with which a drawer is opened. */
interface Drawing {
  readonly options: DrawManyOptions;
  readonly pipeline: Pipeline;
  /** The folder's job, and the description of it that workers read. */
  readonly job: string;
  readonly about: Job;
  readonly progress: ProgressWriter;
}

/** Draws here, or by the workers of a queue. */
async function withDrawer<T>(
  { options, pipeline, job, about, progress }: Drawing,
  work: (drawer: Drawer) => Promise<T>,
): Promise<T> {
  if (options.queue === undefined) return closing(localDrawer(options, pipeline), work);
  const log = (text: string) => progress.line(text);
  return closing(await openQueue(options.queue, { log }), async (queue) => {
    const drawer = await queueDrawer(queue, job, about);
    if (!(await hasWorkers(queue, about))) {
      log(
        `No worker waits for work with this model; start some: patchwise draw-worker --queue ${queue.url} --model ${options.model}.`,
      );
    }
    return closing(drawer, work);
  });
}

function lineOf({ kept, drawn, failed, all, seconds }: LinesProgress): string {
  const perSecond = drawn === 0 ? 0 : drawn / seconds;
  return drawingLine({ done: kept + drawn + failed, pictures: all, perSecond });
}

function tell(
  run: LinesProgress & {
    readonly model: string;
    readonly failures: readonly LineFailure[];
    readonly shards?: readonly string[] | undefined;
  },
  all: number,
  { out, file, json }: DrawManyOptions & { readonly file: string },
): void {
  const { model, kept, drawn, failures, seconds, shards } = run;
  tellSome(
    failures.map(({ line, error }) => `${file}, line ${line.number}: ${error}`),
    (text) => writeLine(process.stderr, text),
  );
  if (failures.length > 0) process.exitCode = 1;
  if (json) {
    const failed = failures.map(({ line, error }) => ({
      line: line.number,
      name: line.name,
      error,
    }));
    const report = { out, model, pictures: all, kept, drawn, failed, seconds };
    writeJsonLine(process.stdout, { ...report, ...(shards && { shards }) });
    return;
  }
  const before =
    kept > 0 ? `; ${counted(kept, "picture")} of before ${kept === 1 ? "is" : "are"} kept` : "";
  const missing =
    failures.length > 0 ? `; ${counted(failures.length, "line")} could not be drawn` : "";
  writeLine(
    process.stderr,
    `Drew ${counted(drawn, "picture")} into ${out} in ${duration(seconds)}${before}${missing}.`,
  );
  if (shards) {
    writeLine(
      process.stderr,
      `Packed them into ${counted(shards.length, "shard")} in ${out}/shards.`,
    );
  }
}

/** More sentences than this are counted instead. */
const TOLD = 20;

function tellSome(texts: readonly string[], say: (text: string) => void): void {
  for (const text of texts.slice(0, TOLD)) say(text);
  if (texts.length > TOLD) say(`… and ${texts.length - TOLD} more of these.`);
}

/** @throws UsageError if the file cannot be read; FormatError if it is no text in UTF-8 */
async function textOf(file: string): Promise<string> {
  const bytes = await system(`read ${file}`, readRegularFile(file), UsageError);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError(`${file} is not a text in UTF-8; save it as one.`, { cause });
  }
}
