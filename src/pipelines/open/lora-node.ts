/** Merges LoRA files into the weights of an open model. */
import {
  adaptedWeight,
  arrayWeight,
  type StoredWeight,
  weightBytes,
  weightType,
} from "../../engine/runtime/stored-weight.ts";
import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FormatError, quote, UsageError } from "../../engine/errors.ts";
import { castArray, sizeOf } from "../../engine/arrays/ndarray.ts";
import { modelFiles } from "../../models/card.ts";
import { layerNames } from "../../training/tasks/lora-layers.ts";
import { closing } from "../../weights/sources/closing.ts";
import { exists, readJson } from "../../weights/sources/folder-node.ts";
import { loraFactors, type LoraPart, mergeLora, readLora } from "../../weights/lora.ts";
import {
  loraFiles,
  type LoraSettings,
  loraSettings,
  peftFile,
} from "../../weights/lora-settings.ts";
import type { HubOptions } from "../../weights/hub/hub-node.ts";
import { parseHubId } from "../../weights/hub/id.ts";
import { downloadLora } from "./hub-model-node.ts";
import { openSafetensorsFile } from "../../weights/safetensors/file-node.ts";
import { readStored } from "../../weights/stored-node.ts";
import type { ImageModel, MergedLora } from "../image-model.ts";

type WeightedPart = LoraPart & { readonly weight: number };

export interface ChosenLora {
  /** A `.safetensors` file, a folder that holds one, or one on the Hugging Face Hub as `owner/name` or `owner/name:file.safetensors`. */
  readonly file: string;
  /** Scale of its contribution; 1 unless given. */
  readonly weight?: number | undefined;
}

/**
 * The model with LoRAs merged into its weights, W + Σ weight·(alpha / rank)·B·A in float32: computed once, or where W is stored in
 * fewer bytes, in each run. Weights that no LoRA changes stay where they are stored; a LoRA of weight 0 changes none.
 *
 * @throws UsageError if there is no such file; FormatError if one is not a LoRA of this model
 */
export async function withLoras(
  model: ImageModel,
  loras: readonly ChosenLora[],
  hub?: HubOptions,
): Promise<ImageModel> {
  if (loras.length === 0) return model;
  const names = layerNames(model.network);
  const applied: MergedLora[] = [];
  const warnings: string[] = [];
  const byParameter = new Map<string, WeightedPart[]>();
  for (const { file, weight = 1 } of loras) {
    if (!Number.isFinite(weight)) {
      throw new UsageError(`The weight of ${file} is ${weight}; give a number, such as 0.8.`);
    }
    const { path, settings } = await locate(file, hub);
    const lora = await closing(await openSafetensorsFile(path), (opened) =>
      readLora(opened, names, model.name, settings),
    );
    applied.push({ file, weight });
    warnings.push(...lora.warnings);
    for (const part of weight === 0 ? [] : lora.parts) {
      const name = `${part.layer}.${part.parameter}`;
      byParameter.set(name, [...(byParameter.get(name) ?? []), { ...part, weight }]);
    }
  }
  const changed = new Map<string, StoredWeight>();
  for (const [name, parts] of byParameter) {
    const stored = model.weights(name);
    if (!stored) {
      throw new FormatError(
        `A LoRA changes ${name}, which ${model.name} does not have; give a LoRA of this model.`,
      );
    }
    changed.set(name, await adapted(stored, parts));
  }
  return {
    ...model,
    weights: (name) => changed.get(name) ?? model.weights(name),
    loras: applied,
    warnings: [...(model.warnings ?? []), ...warnings],
  };
}

/**
 * A weight with the parts of LoRAs. One that is stored in fewer bytes than float32 takes stays as it is, and programs add the products
 * of the LoRAs' matrices to it; others, and updates that are no such products, are computed once.
 */
async function adapted(
  stored: StoredWeight,
  parts: readonly WeightedPart[],
): Promise<StoredWeight> {
  const { shape } = weightType(stored);
  const factors = weightBytes(stored) < 4 * sizeOf(shape) && loraFactors(shape, parts);
  return factors
    ? adaptedWeight(stored, ...factors)
    : arrayWeight(mergeLora(castArray(await readStored(stored), "float32"), parts));
}

/** Path of a LoRA's weights, and the settings file beside them if there is one. */
async function locate(
  file: string,
  hub: HubOptions | undefined,
): Promise<{ readonly path: string; readonly settings: LoraSettings | undefined }> {
  const status = await stat(file).catch(() => undefined);
  if (!status) {
    const [, before, weight] = /^(.+):(.*)$/.exec(file) ?? [];
    if (before !== undefined && (await exists(before))) {
      throw new UsageError(
        `The weight of the LoRA ${before} is ${quote(weight!)}; give a number, such as ${before}:0.5.`,
      );
    }
    const id = parseHubId(file);
    if (id) return locate(await downloadLora(id, hub), hub);
    throw new UsageError(
      `There is no LoRA ${file}; give a .safetensors file, a folder that holds one, or a LoRA on the Hub as owner/name, followed by :WEIGHT for another weight than 1.`,
    );
  }
  if (!status.isDirectory()) {
    // Beside PEFT's own file, the settings are that file's.
    const folder = dirname(file);
    const isOther = basename(file) !== peftFile && (await exists(join(folder, peftFile)));
    return { path: file, settings: isOther ? undefined : await settingsBeside(folder) };
  }
  for (const name of loraFiles) {
    const path = join(file, name);
    if (await exists(path)) return { path, settings: await settingsBeside(file) };
  }
  throw new UsageError(
    `${file} holds no LoRA: none of ${loraFiles.join(", ")} is there; ${(await exists(join(file, modelFiles.card))) ? "it is a model, which is given as --model" : "give the folder of a LoRA"}.`,
  );
}

async function settingsBeside(folder: string): Promise<LoraSettings | undefined> {
  const path = join(folder, loraSettings);
  if (!(await exists(path))) return undefined;
  const content = await readJson(path);
  if (typeof content === "object" && content !== null) return content as LoraSettings;
  throw new FormatError(`${path} holds no object; save the LoRA again.`);
}
