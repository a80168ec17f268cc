/**
 * Products of 8-bit integers in ONNX. Activations are unsigned and weights signed, the combination for which ONNX Runtime has
 * kernels on every CPU. Rows have scales of their own, which none of its ops knows: they multiply the result.
 */
import { ndarray } from "../arrays/ndarray.ts";
import { product } from "../graph/shape.ts";
import type { LowerRule } from "./lower-rules.ts";

/** The smallest divisor of a row, so that a row of zeros stays zero. */
const TINY = 1e-30;

export const quantizeRows: LowerRule<"quantizeRows"> = ({ node, inputs, emitter }) => {
  const [x] = node.inputs;
  const [q, scale] = node.outputs;
  const rows = product(x!.shape.slice(0, -1))!;
  const flat = emitter.emit("Reshape", [inputs[0]!, emitter.reshapeDims([rows, x!.dim(-1)])]);
  const along = emitter.ints([1]);
  // Two passes that only read take less time than one that writes |x|.
  const largest = emitter.emit("Max", [
    emitter.emit("ReduceMax", [flat, along], { keepdims: 0 }),
    emitter.emit("Neg", [emitter.emit("ReduceMin", [flat, along], { keepdims: 0 })]),
    emitter.scalar(127 * TINY, "float32"),
  ]);
  const scales = emitter.emit("Div", [largest, emitter.scalar(127, "float32")]);
  const zero = emitter.constant(ndarray("uint8", [1], [128]));
  const zeros = emitter.emit("Expand", [zero, emitter.dims([rows])]);
  const rounded = emitter.emit("QuantizeLinear", [flat, scales, zeros], { axis: 0 });
  return [
    emitter.emit("Reshape", [rounded, emitter.reshapeDims(q!.shape)]),
    emitter.emit("Reshape", [scales, emitter.reshapeDims(scale!.shape)]),
  ];
};

export const quantizedLinear: LowerRule<"quantizedLinear"> = ({ inputs, emitter }) => {
  const [q, scale, weight, weightScale, bias] = inputs as [string, string, string, string, string?];
  const sums = emitter.emit(
    "MatMulIntegerToFloat",
    [
      q,
      weight,
      emitter.scalar(1, "float32"),
      weightScale,
      emitter.constant(ndarray("uint8", [], [128])),
    ],
    {},
    "com.microsoft",
  );
  const scaled = emitter.emit("Mul", [sums, scale]);
  return bias === undefined ? scaled : emitter.emit("Add", [scaled, bias]);
};
