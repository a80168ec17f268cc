/**
 * A recording of a reference implementation: configuration, inputs and outputs, weights and gradients.
 */
import { FormatError } from "../engine/errors.ts";
import type { Weights } from "../weights/safetensors/safetensors.ts";

export interface Recording {
  /** The name of its folder, for error messages. */
  readonly name: string;
  readonly config: RecordedConfig;
  /** The inputs, named `in.NAME`, and the expected outputs, under all other names. */
  readonly io: Weights;
  /** The recorded model, its own or that of the recording in `weights_from`; undefined without one. */
  readonly model: RecordedModel | undefined;
  /** The model of the recording in `weights_teacher`, from which the recorded one learned. */
  readonly teacher?: RecordedModel | undefined;
  /** Opens a file of weights in its folder, which is closed with the recording. */
  readonly openBeside?: (file: string) => Promise<Weights>;
  /** The gradient of a scalar with respect to each parameter, and the scalar itself as `__loss__`. */
  readonly gradients: Weights | undefined;
}

export interface RecordedModel {
  readonly config: RecordedConfig;
  readonly weights: Weights;
}

export interface RecordedConfig {
  /** The model or process that was recorded. */
  readonly family: string;
  /** The largest |got - want| of its outputs, if one number is enough; the family knows other rules. */
  readonly atol: number | undefined;
  /** A recording beside this one, relative to its folder, whose model this one uses. */
  readonly weightsFrom: string | undefined;
  /** All fields of the file, including the constructor arguments. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/**
 * Checks the fields of a config.json that every family needs.
 *
 * @param name the file, for error messages
 * @throws FormatError if it is not JSON, or has no family or no valid tolerance
 */
export function parseConfig(text: string, name: string): RecordedConfig {
  const fields = parseObject(text, name);
  const { family, tolerance, weights_from: weightsFrom } = fields;
  if (typeof family !== "string") {
    throw new FormatError(`${name} has no "family"; name the model or process that was recorded.`);
  }
  if (!isObject(tolerance)) {
    throw new FormatError(
      `${name} has no "tolerance"; give the largest absolute error as {"atol": NUMBER}.`,
    );
  }
  if (weightsFrom !== undefined && typeof weightsFrom !== "string") {
    throw new FormatError(
      `${name} has the "weights_from" ${JSON.stringify(weightsFrom)}; name a folder beside this one.`,
    );
  }
  return { family, atol: parseAtol(tolerance["atol"], name), weightsFrom, fields };
}

function parseAtol(atol: unknown, name: string): number | undefined {
  if (atol === undefined) return undefined;
  if (typeof atol === "number" && atol >= 0 && atol < Infinity) return atol;
  throw new FormatError(
    `${name} has the "tolerance.atol" ${JSON.stringify(atol)}; give a number ≥ 0.`,
  );
}

function parseObject(text: string, name: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    // The parser quotes the text around the error, including line breaks.
    const reason = (error as Error).message.replaceAll(/\s+/g, " ");
    throw new FormatError(`${name} is not valid JSON (${reason}); correct it.`, { cause: error });
  }
  if (isObject(value)) return value;
  throw new FormatError(`${name} is not a JSON object; write its fields between { and }.`);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
