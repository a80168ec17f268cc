/** The forms in which the network of a small model is published: how each stores its numbers. */
import { channelScales } from "../../src/engine/arrays/channels.ts";
import { rotateGroups } from "../../src/engine/arrays/hadamard.ts";
import { castArray, type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import type { Float8 } from "../../src/engine/arrays/convert.ts";
import { mapValues } from "../../src/engine/records.ts";

type Arrays = Readonly<Record<string, NdArray>>;

/** The tensors of a file that stores these numbers. */
export type StoreForm = (arrays: Arrays) => Arrays;

const bytes = (value: unknown): NdArray => {
  const data = new TextEncoder().encode(JSON.stringify(value));
  return { dtype: "uint8", shape: [data.length], data };
};

/** Replaces each matrix by tensors of its own; all other tensors stay. */
function matrices(store: (layer: string, array: NdArray) => Arrays): StoreForm {
  return (arrays) =>
    Object.fromEntries(
      Object.entries(arrays).flatMap(([name, array]) => {
        const layer = /^(.*\.)weight$/.exec(name)?.[1];
        return layer === undefined || array.shape.length !== 2
          ? [[name, array]]
          : Object.entries(store(layer, array));
      }),
    );
}

/** In 8-bit floats, divided by a scale so that the largest number is the largest that the type holds. */
function float8(dtype: Float8, scaleName?: "scale_weight" | "weight_scale"): StoreForm {
  const most = dtype === "float8_e5m2" ? 57_344 : 448;
  return matrices((layer, array) => {
    const values = toNumbers(array);
    if (scaleName === undefined) return { [`${layer}weight`]: castArray(array, dtype) };
    const scale = Math.fround(
      values.reduce((top, value) => Math.max(top, Math.abs(value)), 0) / most,
    );
    const scaled = ndarray(
      "float32",
      array.shape,
      values.map((value) => value / scale),
    );
    return {
      [`${layer}weight`]: castArray(scaled, dtype),
      [`${layer}${scaleName}`]: ndarray("float32", [], [scale]),
      ...(scaleName === "weight_scale" && { [`${layer}comfy_quant`]: bytes({ format: dtype }) }),
    };
  });
}

/** In 8-bit integers with a scale for each row, rotated by groups where rows are whole groups. */
function int8(group?: number): StoreForm {
  return matrices((layer, array) => {
    const [rows, inputs] = array.shape as readonly [number, number];
    const rotates = group !== undefined && inputs % group === 0;
    const values = Float32Array.from(toNumbers(array));
    if (rotates) rotateGroups(values, group);
    const scales = channelScales(values, inputs);
    const rounded = Int8Array.from(values, (value, i) =>
      Math.round(value / scales[Math.floor(i / inputs)]!),
    );
    const rotation = rotates ? { convrot: true, convrot_groupsize: group } : {};
    return {
      [`${layer}weight`]: { dtype: "int8", shape: array.shape, data: rounded },
      [`${layer}weight_scale`]: { dtype: "float32", shape: [rows, 1], data: scales },
      [`${layer}comfy_quant`]: bytes({ format: "int8_tensorwise", ...rotation }),
    };
  });
}

const marked =
  (store: StoreForm): StoreForm =>
  (arrays) => ({
    ...store(arrays),
    scaled_fp8: castArray(ndarray("float32", [2], [0, 0]), "float8_e4m3fn"),
  });

/** By name. What of the numbers is lost shows in the distance of pictures, in levels of 255 on average. */
export const storeForms: Readonly<Record<string, StoreForm>> = {
  float16: (arrays) => mapValues(arrays, (array) => castArray(array, "float16")),
  bfloat16: (arrays) => mapValues(arrays, (array) => castArray(array, "bfloat16")),
  "fp8 e4m3": float8("float8_e4m3fn"),
  "fp8 e5m2": float8("float8_e5m2"),
  "fp8 e4m3, scale_weight": marked(float8("float8_e4m3fn", "scale_weight")),
  "fp8 e5m2, weight_scale": float8("float8_e5m2", "weight_scale"),
  "int8, not rotated": int8(),
  "int8 rotated by 64": int8(64),
};
