/** The file that Patchwise writes. */
export const ownLoraFile = "lora.safetensors";
/** PEFT's file. */
export const peftFile = "adapter_model.safetensors";
/** Names of the file in a folder with a LoRA: ours, diffusers', PEFT's. */
export const loraFiles = [ownLoraFile, "pytorch_lora_weights.safetensors", peftFile];
/** PEFT's settings beside its file. */
export const loraSettings = "adapter_config.json";

/** The settings that a writer of a LoRA stores beside its tensors or in their file, by PEFT's names. */
import { FormatError, quote } from "../engine/errors.ts";
import { parsePythonJson } from "./python-json.ts";
import type { Weights } from "./safetensors/safetensors.ts";

export type LoraSettings = Readonly<Record<string, unknown>>;

/** The metadata key under which diffusers stores such settings, as JSON with the component before each name. */
export const settingsKey = "lora_adapter_metadata";

/**
 * Reads the settings in a file, without the component before each name: those of diffusers, or "lora_alpha" and "use_rslora"
 * as metadata of their own. Undefined if there are none.
 *
 * @throws FormatError if they cannot be read
 */
export function settingsIn({ name, metadata }: Weights): LoraSettings | undefined {
  const text = metadata.get(settingsKey);
  if (text === undefined) {
    const alpha = metadata.get("lora_alpha");
    if (alpha === undefined) return undefined;
    const stable = metadata.get("use_rslora") ?? "";
    return { lora_alpha: Number(alpha || NaN), use_rslora: /^true$/i.test(stable) };
  }
  try {
    const content = parsePythonJson(text);
    if (typeof content === "object" && content !== null) {
      return Object.fromEntries(
        Object.entries(content).map(([key, value]) => [key.replace(/^transformer\./, ""), value]),
      );
    }
  } catch {
    // Reported below.
  }
  throw new FormatError(
    `${name}: its metadata ${quote(settingsKey)} is not a JSON object, so the alpha of the LoRA is unknown; save it again.`,
  );
}

/** The values of settings with which the tensors alone say what is added to a weight. */
const plain: Readonly<Record<string, readonly unknown[]>> = {
  peft_type: ["LORA", "LOHA", "LOKR"],
  // Others, such as PiSSA, change the weights of the model as well.
  init_lora_weights: [true, false, "gaussian", "eva", "orthogonal"],
  layer_replication: [],
  use_qalora: [false],
  alora_invocation_tokens: [],
};

/** @throws FormatError if a setting gives the tensors another meaning than that of a difference of weights */
export function checkSettings(file: string, settings: LoraSettings): void {
  for (const [name, values] of Object.entries(plain)) {
    const value = settings[name] ?? null;
    if (value === null || values.includes(value)) continue;
    const known = [...values, null].map((each) => JSON.stringify(each)).join(", ");
    throw new FormatError(
      `The settings of ${file} have ${quote(name)} = ${JSON.stringify(value)}, but only ${known} can be merged; convert it to a plain LoRA.`,
    );
  }
}

/**
 * A number of a module as PEFT chooses it: that of the first pattern which matches its name or the end of it, else the common
 * one. NaN if it is no number.
 *
 * @param module its name without the component
 * @throws FormatError if a pattern cannot be matched
 */
export function numberIn(
  settings: LoraSettings,
  patterns: "alpha_pattern" | "rank_pattern",
  module: string,
  common: unknown,
): number | undefined {
  const given = settings[patterns];
  const own =
    typeof given === "object" && given !== null
      ? Object.entries(given).find(([pattern]) => compiled(pattern).test(module))
      : undefined;
  const value = own ? own[1] : (common ?? undefined);
  return value === undefined || typeof value === "number" ? value : NaN;
}

/** Repetitions that a pattern may have: each multiplies the time of a match by the length of a name. */
const MAX_REPETITIONS = 4;

/** A pattern of PEFT, a regular expression for the end of a name that begins after a dot. Those that may take too long are refused. */
function compiled(pattern: string): RegExp {
  const bare = pattern.replaceAll(/\\.|\[(?:\\.|[^\]])*\]/g, "c");
  const repetitions = bare.match(/[*+]|\{\d+,\d*\}/g)?.length ?? 0;
  if (!/\)[*+{]/.test(bare) && repetitions <= MAX_REPETITIONS && pattern.length <= 1000) {
    try {
      return new RegExp(`^(?:.*\\.)?(?:${pattern})$`);
    } catch {
      // Refused below.
    }
  }
  throw new FormatError(
    `The pattern ${quote(pattern)} of a LoRA's settings is no regular expression that can be matched safely; give names, or a pattern without repeated groups and with at most ${MAX_REPETITIONS} repetitions.`,
  );
}
