/** Where a program in the browser finds its weights: files are handed over, since there are no folders to look in. */
import { toFloat32 } from "../arrays/convert.ts";
import { byteSize, viewOf } from "../arrays/dtype.ts";
import { DeviceError } from "../errors.ts";
import { type Graph, leafName } from "../graph/graph.ts";
import { castArray } from "../arrays/ndarray.ts";
import type { StoredWeight, WeightSource } from "./backend.ts";
import type { Mount } from "./executor.ts";
import { piecesOfWeight, typeOfWeight, type WeightPiece, withPieces } from "./stored-weight.ts";

/** Contents of a file by the name that weights' `path` holds. */
export type WebFiles = (name: string) => Blob | Uint8Array<ArrayBuffer> | undefined;

type FileWeight = Extract<StoredWeight, { kind: "file" }>;

/**
 * Weights as ONNX Runtime can take them in a browser, and what mounts the files behind them. bfloat16
 * and float64 become float32 on the way: its WebGPU build has no kernel that would read them.
 */
export async function prepareWeights(
  graph: Graph,
  weights: WeightSource = () => undefined,
  files: WebFiles,
): Promise<{ weights: WeightSource; mount: (paths: readonly string[]) => Mount }> {
  const prepared = new Map<string, StoredWeight>();
  const converted = new Map<string, Blob>();
  for (const parameter of graph.parameters) {
    const name = leafName(parameter);
    const stored = weights(name);
    if (!stored) continue;
    const { dtype } = typeOfWeight(stored);
    const fits = dtype === parameter.dtype || (dtype !== "bfloat16" && dtype !== "float64");
    const replaced = new Map<WeightPiece, WeightPiece>();
    for (const [i, piece] of (fits ? [] : piecesOfWeight(stored)).entries()) {
      if (piece.kind === "array") {
        replaced.set(piece, { kind: "array", array: castArray(piece.array, "float32") });
        continue;
      }
      const path = `${name} as float32, ${i}`;
      const values = await readFloat32(piece, files);
      converted.set(path, new Blob([values]));
      const length = values.byteLength;
      replaced.set(piece, { ...piece, path, offset: 0, length, dtype: "float32" });
    }
    prepared.set(
      name,
      withPieces(stored, (piece) => replaced.get(piece) ?? piece),
    );
  }
  return {
    weights: (name) => prepared.get(name),
    mount: (paths) => mountFiles(paths, (path) => converted.get(path) ?? files(path)),
  };
}

async function readFloat32(stored: FileWeight, files: WebFiles) {
  const { path, offset, length, dtype } = stored;
  const range = contentOf(path, files).slice(offset, offset + length);
  const bytes = range instanceof Blob ? await range.arrayBuffer() : range.buffer;
  const count = length / byteSize(dtype);
  const values = new Float32Array(count);
  toFloat32(dtype, viewOf(dtype, bytes, 0, count), values);
  return values;
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
    `Weights lie in the file ${path}, which the backend was not given; hand it over by the option files.`,
  );
}
