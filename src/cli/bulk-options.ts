/** Options of the commands that draw many pictures, and how they open their model. */
import type { Command } from "commander";
import { type Drawer, pipelineDrawer } from "../bulk/drawer.ts";
import { processesDrawer } from "../bulk/processes.ts";
import { type OpenPipelineOptions, openPipeline } from "../pipelines/open/open-node.ts";
import type { OpenModelOptions } from "../pipelines/open/options.ts";
import type { ChosenLora } from "../pipelines/open/lora-node.ts";
import type { Pipeline } from "../pipelines/pipeline.ts";
import { closing } from "../weights/sources/closing.ts";
import { showingDownload } from "./download-progress.ts";
import {
  addLoraOption,
  addModelOptions,
  chosenDevice,
  deviceNames,
  modelOptions,
  numberOption,
} from "./options.ts";
import { wholeOption } from "./server-options.ts";

/** The values of the options below. */
export interface BulkOptions extends OpenModelOptions {
  readonly model: string;
  readonly lora?: readonly ChosenLora[];
  readonly memory?: number;
  readonly device: string;
  readonly batch: number;
  readonly workers: number;
}

/** Adds the options of the model and of how much is drawn at the same time. */
export function addBulkOptions(command: Command): Command {
  addModelOptions(
    addLoraOption(command.option("--model <name|dir|file|id>", "model to draw with", "emoji")),
  );
  return command
    .option(
      "--memory <GiB>",
      "memory limit of each process; the machine's available memory by default",
      numberOption("--memory"),
    )
    .option("--device <name>", deviceNames, "cpu")
    .option(
      "--batch <n>",
      "pictures that a process draws at the same time; those of one size share the runs of the network",
      wholeOption("--batch"),
      16,
    )
    .option(
      "--workers <n>",
      "processes that draw, each with the model and a share of the cores; worth it where a small network leaves cores idle",
      wholeOption("--workers"),
      1,
    );
}

export function openingOptions(options: BulkOptions): OpenPipelineOptions {
  return {
    ...modelOptions(options),
    ...(options.lora && { loras: options.lora }),
    ...(options.memory !== undefined && { memory: options.memory * 2 ** 30 }),
    device: chosenDevice(options.device),
  };
}

/** Opens the model, without running it, and closes it after the work. */
export async function withPipeline<T>(
  options: BulkOptions,
  work: (pipeline: Pipeline) => Promise<T>,
): Promise<T> {
  const { model } = options;
  const opening = openingOptions(options);
  const pipeline = await showingDownload(model, (onProgress) =>
    openPipeline(model, { ...opening, hub: { onProgress } }),
  );
  return closing({ close: () => pipeline.dispose() }, () => work(pipeline));
}

/** Draws in this process, or in several if they were asked for. */
export function localDrawer(options: BulkOptions, pipeline: Pipeline): Drawer {
  const { model, batch, workers } = options;
  return workers === 1
    ? pipelineDrawer(pipeline, batch)
    : processesDrawer(workers, batch, model, openingOptions(options));
}
