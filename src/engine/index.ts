/**
 * The engine: symbolic tensors, gradients that are more graph, and ONNX Runtime, which runs everything.
 * `patchwise/engine/node` adds the devices of Node, and `patchwise/engine/web` those of the browser.
 */
export { recompute } from "./graph/recompute.ts";
export {
  countMultiplyAdds,
  countParameters,
  type MemoryEstimate,
  peakMemory,
  type State,
} from "./passes/cost.ts";
export {
  byteSize,
  castArray,
  type DType,
  dtypes,
  type NdArray,
  ndarray,
  scalar,
  toNumbers,
  zeros,
  type DataOf,
} from "./arrays/ndarray.ts";
export { DeviceError, FormatError, PatchwiseError, ShapeError, UsageError } from "./errors.ts";
export { evaluate } from "./reference/evaluate.ts";
export {
  attention,
  concat,
  constant,
  constantOf,
  detach,
  full,
  input,
  onesLike,
  parameter,
  scatterSum,
  stack,
  where,
  zerosLike,
} from "./graph/functional.ts";
export { gradient } from "./gradients/gradient.ts";
export { type Graph, graphOf } from "./graph/graph.ts";
export { lower, type LowerOptions, type Lowered } from "./onnx/lower.ts";
export {
  averagePool,
  maxPool,
  pixelShuffle,
  pixelUnshuffle,
  type PoolOptions,
} from "./graph/pool.ts";
export { graphToString } from "./graph/print.ts";
export {
  fork,
  integers,
  normal,
  permutation,
  randomKey,
  uniform,
  type RandomKey,
} from "./random/random.ts";
export { arrayWeights, fileWeight } from "./runtime/stored-weight.ts";
export type {
  StoredWeight,
  AdaptedWeight,
  ArrayWeight,
  BlocksWeight,
  ChannelsWeight,
  FileWeight,
  PermutedWeight,
  RemoteWeight,
  RowsWeight,
  ScaledWeight,
} from "./runtime/weight-forms.ts";
export type {
  Backend,
  CompileOptions,
  Program,
  RunOptions,
  WeightSource,
} from "./runtime/backend.ts";
export { batch, type BatchDim, batchTimes, type Dim, type Shape } from "./graph/shape.ts";
export { type QuantizedGraph, quantizeLinears } from "./passes/quantize.ts";
export { simplify } from "./passes/simplify.ts";
export type { Tensor, Node, Operand } from "./graph/tensor.ts";
export {
  rand,
  randint,
  randn,
  randperm,
  torchGenerator,
  type TorchGenerator,
} from "./random/torch-random.ts";
export { verifyGraph } from "./passes/verify.ts";
export type { BlockFormat } from "./arrays/blocks.ts";
export type { TensorType } from "./graph/infer-checks.ts";
export type { ConvAttributes, ConvOptions, OpName, Ops } from "./graph/ops.ts";
