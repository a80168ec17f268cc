/**
 * Weights in 8-bit integers with a scale for each row, as ComfyUI has them in safetensors: `X.weight`, `X.weight_scale`, and the format
 * in `X.comfy_quant`. Where rows are whole groups of 256, each group is rotated first, which spreads large numbers over it.
 */
import { channelScales } from "../engine/arrays/channels.ts";
import { rotateGroups } from "../engine/arrays/hadamard.ts";
import { scaleRows } from "../engine/arrays/convert.ts";
import { sizeOf } from "../engine/arrays/ndarray.ts";
import type { StreamedTensor } from "../weights/safetensors/write.ts";
import type { QuantizedLayer } from "./quantize-node.ts";
import { changeMeter, type NamedWeight, rowsOfWeight } from "./weight-rows-node.ts";

/** The size of rotated groups in published files. */
const GROUP = 256;

/** The tensors of a file, each quantized as it is written: matrices as integers, all others in float32. */
export function integerTensors(
  all: readonly NamedWeight[],
  onLayer: (layer: QuantizedLayer) => void,
): readonly StreamedTensor[] {
  return all.flatMap((weight) => {
    const { name, shape } = weight;
    const layer = /^(.*\.)weight$/.exec(name)?.[1];
    if (layer === undefined || shape.length !== 2) return [wholeTensor(weight, onLayer)];
    const [rows, inputs] = shape as readonly [number, number];
    const group = inputs % GROUP === 0 ? GROUP : undefined;
    const note = new TextEncoder().encode(JSON.stringify(formatOf(group)));
    return [
      { name, dtype: "int8", shape, bytes: () => integers(weight, group, onLayer) },
      {
        name: `${layer}weight_scale`,
        dtype: "float32",
        shape: [rows, 1],
        bytes: () => scalesOf(weight, group),
      },
      {
        name: `${layer}comfy_quant`,
        dtype: "uint8",
        shape: [note.length],
        bytes: () => [note],
      },
    ];
  });
}

function formatOf(group: number | undefined) {
  const format = "int8_tensorwise";
  return group === undefined
    ? { format, per_row: true }
    : { format, convrot: true, convrot_groupsize: group, per_row: true };
}

function wholeTensor(
  weight: NamedWeight,
  onLayer: (layer: QuantizedLayer) => void,
): StreamedTensor {
  const { name, shape } = weight;
  return {
    name,
    dtype: "float32",
    shape,
    async *bytes() {
      for await (const { values } of rowsOfWeight(weight)) yield bytesOf(values);
      onLayer({ name, type: "F32", bytes: 4 * sizeOf(shape), error: 0 });
    },
  };
}

/** Rows after their rotation, with their scales. */
async function* rotatedRows(weight: NamedWeight, group: number | undefined) {
  const inputs = weight.shape[1]!;
  for await (const { values } of rowsOfWeight(weight)) {
    const rotated = values.slice();
    if (group !== undefined) rotateGroups(rotated, group);
    yield { values, rotated, scales: channelScales(rotated, inputs) };
  }
}

async function* scalesOf(weight: NamedWeight, group: number | undefined) {
  for await (const { scales } of rotatedRows(weight, group)) yield bytesOf(scales);
}

async function* integers(
  weight: NamedWeight,
  group: number | undefined,
  onLayer: (layer: QuantizedLayer) => void,
) {
  const { name, shape } = weight;
  const inputs = shape[1]!;
  const change = changeMeter();
  for await (const { values, rotated, scales } of rotatedRows(weight, group)) {
    const rounded = Int8Array.from(rotated, (value, i) => {
      const scale = scales[Math.floor(i / inputs)]!;
      return scale === 0 ? 0 : Math.round(value / scale);
    });
    const after = Float32Array.from(rounded);
    scaleRows(after, scales);
    if (group !== undefined) rotateGroups(after, group);
    change.add(values, after);
    yield new Uint8Array(rounded.buffer);
  }
  const bytes = sizeOf(shape) + 4 * shape[0]!;
  onLayer({ name, type: "int8", bytes, error: change.share() });
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
