/** First values of weights from another model, on disk. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { FormatError } from "../../engine/errors.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
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
  await closing(await openSafetensorsFile(path), async (weights) => {
    for (const [name, { tensor }] of params.declared) {
      const entry = weights.entries.get(keyOf(name));
      const shape = resolve(tensor.shape, undefined);
      if (entry?.shape.join() !== shape.join()) {
        throw new FormatError(
          `${weights.name} is of another model than the config: ${name} is ${entry ? `[${entry.shape.join(", ")}]` : "missing"} there, but [${shape.join(", ")}] here; set model as it was trained.`,
        );
      }
    }
  });
  return async (names) =>
    closing(await openSafetensorsFile(path), async ({ entries }) => {
      const values: Record<string, NdArray> = {};
      for (const name of names) values[name] = await readFloat32(entries.get(keyOf(name))!);
      return values;
    });
}
