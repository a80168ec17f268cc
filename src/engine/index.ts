/**
 * The engine: symbolic tensors, gradients as graph, and ONNX Runtime as the only thing that runs.
 * `patchwise/engine/node` adds the devices of Node, `patchwise/engine/web` those of the browser.
 */
export { checkpoint } from "./checkpoint.ts";
export { countMultiplyAdds, countParameters, type MemoryEstimate, peakMemory } from "./cost.ts";
export { byteSize, type DType, dtypes } from "./dtype.ts";
export { DeviceError, FormatError, PatchwiseError, ShapeError, UsageError } from "./errors.ts";
export { evaluate } from "./evaluate.ts";
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
} from "./functional.ts";
export { gradient } from "./gradient.ts";
export { type Graph, graphOf } from "./graph.ts";
export { hashGraph } from "./hash.ts";
export { castArray, type NdArray, ndarray, scalar, toNumbers, zeros } from "./ndarray.ts";
export { lower } from "./onnx/lower.ts";
export { averagePool, maxPool, pixelShuffle, pixelUnshuffle, type PoolOptions } from "./pool.ts";
export { graphToString } from "./print.ts";
export { fork, integers, normal, permutation, randomKey, uniform } from "./random.ts";
export type {
  Backend,
  CompileOptions,
  Program,
  RunOptions,
  StoredWeight,
  WeightSource,
} from "./runtime/backend.ts";
export { cachedBackend } from "./runtime/cache.ts";
export { batch, type BatchDim, batchTimes, type Dim, type Shape } from "./shape.ts";
export { simplify } from "./simplify.ts";
export type { Tensor } from "./tensor.ts";
export { rand, randint, randn, randperm, torchGenerator } from "./torch-random.ts";
export { verifyGraph } from "./verify.ts";
