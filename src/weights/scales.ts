/**
 * Scales of weights in 8-bit floats, which are tensors of their own beside `X.weight`: `X.scale_weight` in files with a tensor
 * `scaled_fp8`, and `X.weight_scale` with the format in `X.comfy_quant` in newer ones (https://github.com/comfyanonymous/ComfyUI).
 */
import { isFloat8 } from "../engine/arrays/convert.ts";
import { sizeOf } from "../engine/arrays/ndarray.ts";
import { FormatError, quote } from "../engine/errors.ts";
import { formatShape } from "../engine/graph/shape.ts";
import type { TensorEntry } from "./safetensors/header.ts";

const scaleNames = /^(.*\.)(?:scale_weight|weight_scale)$/;
/** Scales of what goes into a layer, which a computation in float32 does not need, and notes on the format. */
const notes = /^(.*\.)(?:scale_input|input_scale|comfy_quant)$/;
const marker = /^(.*\.)?scaled_fp8$/;

/**
 * Returns the tensors of a file, each weight in 8-bit floats with its scale, and no scales beside them.
 *
 * @throws FormatError if a scale does not fit its weight
 */
export function joinScales(
  entries: ReadonlyMap<string, TensorEntry>,
): ReadonlyMap<string, TensorEntry> {
  const weightOf = (layer: string | undefined) => {
    const found = layer === undefined ? undefined : entries.get(`${layer}weight`);
    return found?.dtype && isFloat8(found.dtype) ? found : undefined;
  };
  const joined = new Map(entries);
  for (const [name, entry] of entries) {
    const weight = weightOf(scaleNames.exec(name)?.[1]);
    if (weight) joined.set(weight.name, { ...weight, scale: fitting(entry, weight) });
    if (weight || weightOf(notes.exec(name)?.[1]) || isMarker(name, entry)) joined.delete(name);
  }
  return joined;
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
