/** Options that several commands have, and parsers of their values. */
import type { Command } from "commander";
import { DeviceError, quote, UsageError } from "../engine/errors.ts";
import type { NodeDevice } from "../engine/runtime/ort-session-node.ts";
import { localRank } from "../training/collective/mpi-node.ts";
import type { ChosenLora } from "../pipelines/open/lora-node.ts";
import { readSize } from "../pictures/size-text.ts";
import type { PictureSize } from "../pipelines/image-model.ts";
import { type OpenModelOptions, openOptions } from "../pipelines/open/options.ts";
import { pick } from "../engine/records.ts";

/** A parser of a number, as commander takes it. */
export function numberOption(name: string): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? NaN : Number(text);
    if (Number.isFinite(value)) return value;
    throw new UsageError(`${name} is ${quote(text)}, which is not a number; give one.`);
  };
}

/** A parser of numbers that are separated by commas. */
export function numbersOption(name: string): (text: string) => readonly number[] {
  const parse = numberOption(name);
  return (text) => text.split(",").map(parse);
}

/** A parser of two numbers. */
export function pairOption(name: string): (text: string) => readonly [number, number] {
  const parse = numbersOption(name);
  return (text) => {
    const [first, second, ...rest] = parse(text);
    if (first !== undefined && second !== undefined && rest.length === 0) return [first, second];
    throw new UsageError(`${name} is ${quote(text)}; give two numbers, such as 0.1,0.5.`);
  };
}

/** Parses width and height, "64x48", or one number for both. */
export function sizeOption(text: string): PictureSize {
  return readSize(text, "--size");
}

/** Adds the options of opening a model, one for each row of `openOptions`. */
export function addModelOptions(command: Command): Command {
  for (const { flag, help, isNumber } of Object.values(openOptions)) {
    if (isNumber) command.option(flag, help, numberOption(flag.split(" ")[0]!));
    else command.option(flag, help);
  }
  return command;
}

/** The options of opening a model among all options of a command. */
export function modelOptions(options: OpenModelOptions): OpenModelOptions {
  return pick<unknown>({ ...options }, (name) => name in openOptions);
}

/** Adds the option that names LoRAs to merge into the model. */
export function addLoraOption(command: Command): Command {
  return command.option(
    "--lora <dir|file|id[:weight]>",
    "a LoRA to add to the model, also one on the Hugging Face Hub, and its weight (default: 1); can be given several times",
    loraOption,
  );
}

/** The part after the last colon is a weight only if it is a number, since paths may contain colons. */
function loraOption(text: string, before: readonly ChosenLora[] = []): readonly ChosenLora[] {
  const [, file, weight] = /^(.+):([-+]?[\d.]+(?:e[-+]?\d+)?)$/i.exec(text) ?? [];
  const parsed = Number(weight);
  return [
    ...before,
    file !== undefined && Number.isFinite(parsed) ? { file, weight: parsed } : { file: text },
  ];
}

export const deviceNames =
  "cpu, cuda, coreml, dml or webgpu; of several, cuda:1, or cuda:LOCAL_RANK for one to each rank of a machine";

/**
 * Runs work on the device that was asked for.
 *
 * @throws UsageError if the machine has no such device, because choosing another one is the way out
 */
export async function onDevice<T>(
  asked: string,
  work: (device: NodeDevice) => Promise<T>,
): Promise<T> {
  const device = chosenDevice(asked);
  try {
    return await work(device);
  } catch (error) {
    if (!(error instanceof DeviceError) || device === "cpu") throw error;
    throw new UsageError(error.message, { cause: error });
  }
}

/**
 * The device that `--device` names, with the number of this process on its machine for LOCAL_RANK.
 *
 * @throws UsageError if no launcher tells that number, or if it is of a second WebGPU device, which ONNX Runtime cannot choose
 */
export function chosenDevice(asked: string, environment?: NodeJS.ProcessEnv): NodeDevice {
  const device = asked.replace(/:LOCAL_RANK$/, () => `:${localRank(environment)}`);
  const [, number] = /^webgpu:(\d+)$/.exec(device) ?? [];
  if (Number(number) > 0) {
    throw new UsageError(
      `--device ${asked} would be WebGPU device ${number}, but ONNX Runtime always takes the first one of a machine; let each rank see one GPU alone and give webgpu, or give cuda:LOCAL_RANK.`,
    );
  }
  return (number === undefined ? device : "webgpu") as NodeDevice;
}
