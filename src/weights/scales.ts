/**
 * Scales of weights in 8-bit floats and integers, which are tensors of their own beside `X.weight`: `X.scale_weight` in files with a
 * tensor `scaled_fp8`, and `X.weight_scale` in newer ones, whose format is JSON in `X.comfy_quant` or in the metadata
 * (https://github.com/comfyanonymous/ComfyUI). Integers of the format `int8_tensorwise` have a scale for each row or for all, and may
 * be rotated along their rows.
 */
import { isFloat8 } from "../engine/arrays/convert.ts";
import { isRotationSize } from "../engine/arrays/hadamard.ts";
import { sizeOf } from "../engine/arrays/ndarray.ts";
import { FormatError, quote } from "../engine/errors.ts";
import { formatShape } from "../engine/graph/shape.ts";
import { isRecord } from "../engine/records.ts";
import type { TensorEntry } from "./safetensors/header.ts";
import type { Weights } from "./safetensors/safetensors.ts";

const scaleNames = /^(.*\.)(?:scale_weight|weight_scale)$/;
/** Scales of what goes into a layer, which a computation in float32 does not need, and notes on the format. */
const notes = /^(.*\.)(?:scale_input|input_scale|comfy_quant)$/;
const marker = /^(.*\.)?scaled_fp8$/;
const formatNotes = /^(.*\.)comfy_quant$/;

/** The metadata that has the formats of all layers in newer files. */
const METADATA = "_quantization_metadata";
/** More bytes than any note on a format takes. */
const LONGEST_NOTE = 4096;

/** The format of a layer's weight as its file describes it. */
export interface WeightFormat {
  readonly format: string;
  /** The size of the groups that a rotation mixed; none unless given. */
  readonly rotated?: number;
}

/**
 * The formats of weights by the names of their layers, each with a dot at its end.
 *
 * @throws FormatError if a note is no JSON of a known form
 */
export async function weightFormats(weights: Weights): Promise<ReadonlyMap<string, WeightFormat>> {
  const { name, metadata, entries } = weights;
  const found = new Map<string, WeightFormat>();
  const all = metadata.get(METADATA);
  const layers =
    all === undefined ? {} : parsed(all, `${name}: the metadata ${METADATA}`)["layers"];
  for (const [layer, note] of Object.entries(isRecord(layers) ? layers : {})) {
    found.set(`${layer}.`, formatIn(note, `${name}: the metadata ${METADATA} of ${quote(layer)}`));
  }
  for (const [key, { dtype, length }] of entries) {
    const layer = formatNotes.exec(key)?.[1];
    if (layer === undefined || dtype !== "uint8" || length > LONGEST_NOTE) continue;
    // The dtype of 8-bit floats is their format.
    const own = entries.get(`${layer}weight`)?.dtype;
    if (own && isFloat8(own)) continue;
    const text = new TextDecoder().decode(
      Uint8Array.from((await weights.read(key)).data as Uint8Array),
    );
    const place = `${name}: tensor ${quote(key)}`;
    found.set(layer, formatIn(parsed(text, place), place));
  }
  return found;
}

function parsed(text: string, place: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (isRecord(value)) return value;
  } catch {
    // Reported below, as other values than objects are.
  }
  throw new FormatError(
    `${place} should be a JSON object that describes how weights are quantized, but is ${quote(text.slice(0, 40))}; download the file again.`,
  );
}

function formatIn(note: unknown, place: string): WeightFormat {
  const { format, convrot, convrot_groupsize: size = 256 } = isRecord(note) ? note : {};
  if (typeof format !== "string") {
    throw new FormatError(`${place} names no format of its weight; download the file again.`);
  }
  if (convrot !== true) return { format };
  if (typeof size === "number" && isRotationSize(size)) return { format, rotated: size };
  throw new FormatError(
    `${place} has groups of ${String(size)} for its rotation, but these must be a power of 4 such as 256; give the model in another format.`,
  );
}

/** The format of integers with scales. */
const INTEGERS = "int8_tensorwise";

/**
 * Returns the tensors of a file, each weight in 8 bits with its scale, and no scales beside them.
 *
 * @param formats as `weightFormats` finds them
 * @throws FormatError if a scale does not fit its weight, or a weight has a format that is not read
 */
export function joinScales(
  entries: ReadonlyMap<string, TensorEntry>,
  formats: ReadonlyMap<string, WeightFormat> = new Map(),
): ReadonlyMap<string, TensorEntry> {
  const weightOf = (layer: string | undefined) => {
    const found = layer === undefined ? undefined : entries.get(`${layer}weight`);
    return found?.dtype && (isFloat8(found.dtype) || found.dtype === "int8") ? found : undefined;
  };
  checkFormats(entries, formats);
  const joined = new Map(entries);
  for (const [name, entry] of entries) {
    const layer = scaleNames.exec(name)?.[1];
    const weight = weightOf(layer);
    if (weight) {
      const scaled = { ...weight, scale: fitting(entry, weight) };
      joined.set(weight.name, { ...scaled, ...rotationOf(weight, formats.get(layer!)) });
    }
    if (weight || weightOf(notes.exec(name)?.[1]) || isMarker(name, entry)) joined.delete(name);
  }
  return joined;
}

/** @throws FormatError for a weight of a format that is not read */
function checkFormats(
  entries: ReadonlyMap<string, TensorEntry>,
  formats: ReadonlyMap<string, WeightFormat>,
): void {
  for (const [layer, { format }] of formats) {
    const weight = entries.get(`${layer}weight`);
    if (!weight) continue;
    const fits = weight.dtype === "int8" ? format === INTEGERS : format.startsWith("float8_");
    if (fits && (weight.dtype === "int8" || (weight.dtype && isFloat8(weight.dtype)))) continue;
    throw new FormatError(
      `${weight.source.name}: tensor ${quote(weight.name)} is ${weight.tag} in the format ${quote(format)}, which cannot be read; give the model in bfloat16, in 8-bit floats, in ${INTEGERS} or as GGUF.`,
    );
  }
}

/** The size of the groups of a rotated weight, checked against its rows. */
function rotationOf(
  weight: TensorEntry,
  { rotated }: Partial<WeightFormat> = {},
): Pick<TensorEntry, "rotated"> {
  if (rotated === undefined) return {};
  const { shape, source, name } = weight;
  if (shape.length === 2 && shape[1]! % rotated === 0) return { rotated };
  throw new FormatError(
    `${source.name}: tensor ${quote(name)} is ${formatShape(shape)}, whose rows are no whole groups of ${rotated} for its rotation; download the file again.`,
  );
}

function isMarker(name: string, { dtype, shape }: TensorEntry): boolean {
  return marker.test(name) && dtype !== null && isFloat8(dtype) && shape.length === 1;
}

/** The scale as one number or in the shape [rows, 1, …]. */
function fitting(scale: TensorEntry, weight: TensorEntry): TensorEntry {
  const count = sizeOf(scale.shape);
  const [rows = 1, ...rest] = weight.shape;
  if (count === 1) return { ...scale, shape: [] };
  const perRow = scale.shape[0] === rows && count === rows;
  if (perRow) return { ...scale, shape: [rows, ...rest.map(() => 1)] };
  throw new FormatError(
    `${scale.source.name}: tensor ${quote(scale.name)} is ${formatShape(scale.shape)}, but the scale of ${quote(weight.name)} ${formatShape(weight.shape)} must be one number, or one for each row; give the model in float16, bfloat16 or float32.`,
  );
}
