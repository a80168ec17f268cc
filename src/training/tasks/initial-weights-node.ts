/** First values of weights from another model, on disk. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { FormatError } from "../../engine/errors.ts";
import { type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { resolve } from "../../engine/graph/shape.ts";
import { modelFiles } from "../../models/card.ts";
import type { ParamsRoot } from "../../nn/params.ts";
import { openSafetensorsFile } from "../../weights/safetensors/file-node.ts";
import { readFloat32 } from "../../weights/safetensors/safetensors.ts";
import { closing } from "../../weights/sources/closing.ts";
import type { ReadWeights } from "./denoiser.ts";

/**
 * Checks that a file holds all weights of a model. The result reads the named ones, anew each time.
 *
 * A model of clips may begin with the weights of one of still pictures, which are inflated (Carreira & Zisserman, 2017): a patch of
 * several frames sees their mean, and each of its frames is drawn as the picture was.
 *
 * @param from a trained folder, or a file of weights
 * @param published the file inside such a folder, and the name of a weight in it
 * @throws FormatError when the file is of another model
 */
export async function readInitialWeights(
  params: ParamsRoot,
  from: string,
  { file, keyOf } = { file: modelFiles.weights as string, keyOf: (name: string) => name },
): Promise<ReadWeights> {
  const isFolder = (await stat(from).catch(() => undefined))?.isDirectory();
  const path = isFolder ? join(from, file) : from;
  let frames = 1;
  await closing(await openSafetensorsFile(path), async (weights) => {
    frames = inflation(params, (name) => weights.entries.get(keyOf(name))?.shape);
    for (const [name, { tensor }] of params.declared) {
      const entry = weights.entries.get(keyOf(name));
      const shape = resolve(tensor.shape, undefined);
      if (
        !entry ||
        !(entry.shape.join() === shape.join() || inflates(entry.shape, shape, frames))
      ) {
        throw new FormatError(
          `${weights.name} is of another model than the config: ${name} is ${entry ? `[${entry.shape.join(", ")}]` : "missing"} there, but [${shape.join(", ")}] here; set model as it was trained.`,
        );
      }
    }
  });
  return async (names) =>
    closing(await openSafetensorsFile(path), async ({ entries }) => {
      const values: Record<string, NdArray> = {};
      for (const name of names) {
        const stored = await readFloat32(entries.get(keyOf(name))!);
        values[name] = inflated(
          stored,
          resolve(params.declared.get(name)!.tensor.shape, undefined),
        );
      }
      return values;
    });
}

type Shape = readonly number[];

/** Returns true if a shape is that of weights of patches, [outputs, channels, H, W], with an axis of time in the third place. */
function addsTime(stored: Shape, wanted: Shape): boolean {
  return stored.length === 4 && wanted.toSpliced(2, 1).join() === stored.join();
}

/** Frames of a patch of a model of clips whose other weights are those of a model of pictures; 1 where nothing is inflated. */
function inflation(params: ParamsRoot, storedOf: (name: string) => Shape | undefined): number {
  for (const [name, { tensor }] of params.declared) {
    const shape = resolve(tensor.shape, undefined);
    if (addsTime(storedOf(name) ?? [], shape)) return shape[2]!;
  }
  return 1;
}

/** Returns true if weights become those of a shape: patches get an axis of time, and the output one row for each pixel of each frame. */
function inflates(stored: Shape, [outputs, ...others]: Shape, frames: number): boolean {
  if (addsTime(stored, [outputs!, ...others])) return true;
  return (
    frames > 1 && [frames * stored[0]!, ...stored.slice(1)].join() === [outputs, ...others].join()
  );
}

function inflated(stored: NdArray<"float32">, shape: Shape): NdArray<"float32"> {
  if (stored.shape.join() === shape.join()) return stored;
  const data = new Float32Array(shape.reduce((all, side) => all * side, 1));
  if (!addsTime(stored.shape, shape)) {
    for (let at = 0; at < data.length; at += stored.data.length) data.set(stored.data, at);
    return ndarray("float32", shape, data);
  }
  const [, , frames, height, width] = shape as readonly [number, number, number, number, number];
  const area = height * width;
  for (let i = 0; i < data.length; i++) {
    const plane = Math.floor(i / (frames * area));
    data[i] = stored.data[plane * area + (i % area)]! / frames;
  }
  return ndarray("float32", shape, data);
}
