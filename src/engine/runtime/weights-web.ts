/** Prepares weights for ONNX Runtime in a browser, which has no folders: files are handed over by the page. */
import { toFloat32 } from "../arrays/convert.ts";
import { DeviceError } from "../errors.ts";
import { type Graph, leafName } from "../graph/graph.ts";
import type { WeightSource } from "./backend.ts";
import type { Mount } from "./executor.ts";
import {
  fileWeight,
  isInPlace,
  type ReadFile,
  readWeight,
  type StoredWeight,
  weightType,
} from "./stored-weight.ts";

/** Finds the content of a file by the `path` of a stored weight. */
export type WebFiles = (name: string) => Blob | Uint8Array<ArrayBuffer> | undefined;

/**
 * Makes weights readable by ONNX Runtime in a browser. Weights in bfloat16 and float64 are converted to float32,
 * because its WebGPU build has no kernels that read them, and so are quantized ones.
 *
 * @returns the weights, and a function that mounts the files behind them
 * @throws DeviceError if `files` lacks a file whose weights have to be converted
 */
export async function prepareWeights(
  graph: Graph,
  weights: WeightSource = () => undefined,
  files: WebFiles,
): Promise<{ weights: WeightSource; mount: (paths: readonly string[]) => Mount }> {
  const prepared = new Map<string, StoredWeight>();
  const converted = new Map<string, Blob>();
  const readFile: ReadFile = async (target, path, offset) => {
    const range = contentOf(path, files).slice(offset, offset + target.length);
    target.set(range instanceof Blob ? new Uint8Array(await range.arrayBuffer()) : range);
  };
  for (const parameter of graph.parameters) {
    const name = leafName(parameter);
    const stored = weights(name);
    if (!stored) continue;
    const { dtype, shape } = weightType(stored);
    const readable = dtype !== "bfloat16" && dtype !== "float64";
    if (isInPlace(stored) && (dtype === parameter.dtype || readable)) {
      prepared.set(name, stored);
      continue;
    }
    const { data } = await readWeight(stored, readFile);
    const values = new Float32Array(data.length);
    toFloat32(dtype, data, values);
    const path = `${name} as float32`;
    converted.set(path, new Blob([values]));
    prepared.set(name, fileWeight(path, 0, "float32", shape));
  }
  return {
    weights: (name) => prepared.get(name),
    mount: (paths) => mountFiles(paths, (path) => converted.get(path) ?? files(path)),
  };
}

function mountFiles(paths: readonly string[], files: WebFiles): Mount {
  return {
    files: Object.fromEntries(paths.map((path, i) => [`file${i}`, path])),
    contents: Object.fromEntries(paths.map((path, i) => [`file${i}`, contentOf(path, files)])),
  };
}

function contentOf(path: string, files: WebFiles): Blob | Uint8Array<ArrayBuffer> {
  const content = files(path);
  if (content) return content;
  throw new DeviceError(
    `The weights are in the file ${path}, which the backend was not given; pass it with the option \`files\`.`,
  );
}
