/** Values of options, from text. */
import type { Command } from "commander";
import { DeviceError, UsageError } from "../engine/errors.ts";
import type { NodeDevice } from "../engine/runtime/ort-session-node.ts";
import type { ChosenLora } from "../pipelines/open/lora-node.ts";
import type { OpenModelOptions } from "../pipelines/open/open-options.ts";
import { quote } from "../engine/messages.ts";

/** A parser of numbers for an option, as commander takes it. */
export function numberOption(name: string): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? NaN : Number(text);
    if (Number.isFinite(value)) return value;
    throw new UsageError(`${name} is ${quote(text)}, which is no number; give one.`);
  };
}

/** A parser of numbers between commas. */
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

/**
 * Width and height, "64x48", or one number for both.
 *
 * @returns [height, width]
 */
export function sizeOption(text: string): readonly [height: number, width: number] {
  const [, width, height = width] = /^(\d+)(?:\s*[x×]\s*(\d+))?$/i.exec(text.trim()) ?? [];
  if (width !== undefined) return [Number(height), Number(width)];
  throw new UsageError(
    `--size is ${quote(text)}; give width and height in pixels, such as 64x48, or one number for both.`,
  );
}

/** Adds the options that say where the parts of a model are which it does not bring. */
export function addModelOptions(command: Command): Command {
  return command
    .option("--vae <dir|file>", "Stable Diffusion's autoencoder, for models of latents without one")
    .option(
      "--text-encoders <dir|file...>",
      "text encoders of Stable Diffusion 3, where its file holds none: files, or a folder of them",
    )
    .option("--tokenizers <dir>", "a folder with tokenizer, tokenizer_2 and tokenizer_3")
    .option("--without <encoder...>", "text encoders to do without: clip-l, clip-g, t5")
    .option(
      "--prompt-tokens <n>",
      "that T5 reads (default: 256 for folders, 77 for single files)",
      numberOption("--prompt-tokens"),
    );
}

/** What such options say, as those of a model. */
export function modelOptions(options: OpenModelOptions): OpenModelOptions {
  const { vae, textEncoders, tokenizers, without, promptTokens } = options;
  return { vae, textEncoders, tokenizers, without, promptTokens };
}

/** Adds the option that names LoRA to mix into the model. */
export function addLoraOption(command: Command): Command {
  return command.option(
    "--lora <dir|file[:weight]>",
    "a LoRA to mix into the model, and how much of it (default: 1); may be given again",
    loraOption,
  );
}

/** What is behind the last colon is a weight, where it is a number: paths may hold colons too. */
function loraOption(text: string, before: readonly ChosenLora[] = []): readonly ChosenLora[] {
  const [, file, weight] = /^(.+):([-+]?[\d.]+(?:e[-+]?\d+)?)$/i.exec(text) ?? [];
  const parsed = Number(weight);
  return [
    ...before,
    file !== undefined && Number.isFinite(parsed) ? { file, weight: parsed } : { file: text },
  ];
}

export const deviceNames = "cpu, cuda, coreml, dml or webgpu";

/**
 * Works on the device that a person chose.
 *
 * @throws UsageError where the machine cannot offer it: choosing another is the way out
 */
export async function onDevice<T>(
  device: string,
  work: (device: NodeDevice) => Promise<T>,
): Promise<T> {
  try {
    return await work(device as NodeDevice);
  } catch (error) {
    if (!(error instanceof DeviceError) || device === "cpu") throw error;
    throw new UsageError(error.message, { cause: error });
  }
}
