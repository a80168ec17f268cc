/** Draws a small model in each form of its files, beside the same numbers in float32. */
import path from "node:path";
import { castArray, type NdArray } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeight } from "../../src/engine/runtime/stored-weight.ts";
import type { WeightSource } from "../../src/engine/runtime/backend.ts";
import type { ImageModel } from "../../src/pipelines/image-model.ts";
import { openModel } from "../../src/pipelines/open/open-node.ts";
import { finished, imagePipeline } from "../../src/pipelines/pipeline.ts";
import { quantizeModel, type QuantizedType } from "../../src/pipelines/quantize-node.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { readStored } from "../../src/weights/stored-node.ts";
import { originalWeights, type SmallModel, writeSmallFolder } from "./flux-folders.ts";
import { storeForms } from "./model-forms.ts";

export interface FormDistance {
  readonly form: string;
  /** The file of the network in this form, until the next one is asked for. */
  readonly file: string;
  /** The largest difference of a pixel to the picture of the same numbers in float32. */
  readonly exact: number;
  /** The mean difference to the picture of the numbers before they were stored in this form. */
  readonly distance: number;
}

const blocks: readonly QuantizedType[] = ["Q8_0", "Q4_0", "Q4_K", "int8"];

/** @param wanted names of forms; all unless given */
export async function* formDistances(
  model: SmallModel,
  scratch: string,
  wanted: readonly string[] = [...Object.keys(storeForms), ...blocks],
): AsyncGenerator<FormDistance> {
  const folder = path.join(scratch, model.family);
  await writeSmallFolder(folder, model);
  const whole = await openModel(folder, model.family === "minit2i" ? {} : { promptTokens: 16 });
  const own = await drawn(whole, whole.weights);
  for (const form of wanted) {
    const store = storeForms[form];
    const quantized = blocks.find((type) => type === form);
    const file = path.join(scratch, `form.${form.startsWith("Q") ? "gguf" : "safetensors"}`);
    if (quantized) await quantizeModel(whole, quantized, file, () => {});
    else await writeSafetensors(file, Object.entries(store!(originalWeights(model))));
    const stored = await openModel(file);
    const { weights } = stored;
    const pixels = await drawn(whole, weights);
    const same = await drawn(whole, await float32Of(originalWeights(model), weights));
    await stored.close();
    const largest = pixels.map((value, i) => Math.abs(value - same[i]!));
    const total = pixels.reduce((sum, value, i) => sum + Math.abs(value - own[i]!), 0);
    yield { form, file, exact: Math.max(...largest), distance: total / own.length };
  }
  await whole.close();
}

/** All weights as float32 in memory. */
async function float32Of(
  names: Readonly<Record<string, NdArray>>,
  weights: WeightSource,
): Promise<WeightSource> {
  const read = new Map<string, NdArray>();
  for (const name of Object.keys(names)) {
    read.set(name, castArray(await readStored(weights(name)!), "float32"));
  }
  return (name) => {
    const array = read.get(name);
    return array && arrayWeight(array);
  };
}

async function drawn(model: ImageModel, weights: WeightSource): Promise<Uint8Array> {
  const pipeline = imagePipeline({ ...model, weights, close: async () => {} }, nodeBackend("cpu"));
  const asked = { prompt: "a red cat", seed: 3, width: 32, height: 32, steps: 1 };
  const [picture] = await finished(pipeline.generate(asked));
  await pipeline.dispose();
  return picture!.pixels;
}
