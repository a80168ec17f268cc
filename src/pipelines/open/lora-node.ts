/** Merges LoRA files into the weights of an open model. */
import { arrayWeight } from "../../engine/runtime/stored-weight.ts";
import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FormatError, UsageError } from "../../engine/errors.ts";
import { castArray, type NdArray } from "../../engine/arrays/ndarray.ts";
import { modelFiles } from "../../models/card.ts";
import { layerNames } from "../../training/tasks/lora-layers.ts";
import { closing } from "../../weights/sources/closing.ts";
import { exists, readJson } from "../../weights/sources/folder-node.ts";
import { type LoraPart, mergeLora, readLora } from "../../weights/lora.ts";
import type { LoraSettings } from "../../weights/lora-settings.ts";
import { openSafetensorsFile } from "../../weights/safetensors/file-node.ts";
import { readStored } from "../../weights/stored-node.ts";
import type { ImageModel, MergedLora } from "../image-model.ts";

const peftFile = "adapter_model.safetensors";
/** Names of the file in a folder with a LoRA: ours, diffusers', PEFT's. */
const fileNames = [modelFiles.lora, "pytorch_lora_weights.safetensors", peftFile];
/** PEFT's settings beside its file. */
const settingsFile = "adapter_config.json";

export interface ChosenLora {
  /** A `.safetensors` file, or a folder that holds one. */
  readonly file: string;
  /** Scale of its contribution; 1 unless given. */
  readonly weight?: number | undefined;
}

/**
 * The model with LoRAs merged into its weights: W + Σ weight·(alpha / rank)·B·A, computed once, in float32. Weights that no
 * LoRA changes stay where they are stored; a LoRA of weight 0 changes none.
 *
 * @throws UsageError if there is no such file; FormatError if one is not a LoRA of this model
 */
export async function withLoras(
  model: ImageModel,
  loras: readonly ChosenLora[],
): Promise<ImageModel> {
  if (loras.length === 0) return model;
  const names = layerNames(model.network);
  const applied: MergedLora[] = [];
  const warnings: string[] = [];
  const byParameter = new Map<string, (LoraPart & { readonly weight: number })[]>();
  for (const { file, weight = 1 } of loras) {
    if (!Number.isFinite(weight)) {
      throw new UsageError(`The weight of ${file} is ${weight}; give a number, such as 0.8.`);
    }
    const { path, settings } = await locate(file);
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
  const merged = new Map<string, NdArray>();
  for (const [name, parts] of byParameter) {
    const stored = model.weights(name);
    if (!stored) {
      throw new FormatError(
        `A LoRA changes ${name}, which ${model.name} does not have; give a LoRA of this model.`,
      );
    }
    merged.set(name, mergeLora(castArray(await readStored(stored), "float32"), parts));
  }
  return {
    ...model,
    weights: (name) => {
      const array = merged.get(name);
      return array ? arrayWeight(array) : model.weights(name);
    },
    loras: applied,
    warnings: [...(model.warnings ?? []), ...warnings],
  };
}

/** Path of a LoRA's weights, and the settings file beside them if there is one. */
async function locate(
  file: string,
): Promise<{ readonly path: string; readonly settings: LoraSettings | undefined }> {
  const status = await stat(file).catch(() => undefined);
  if (!status) {
    throw new UsageError(
      `There is no LoRA ${file}; give a .safetensors file, or a folder that holds one, followed by :WEIGHT for another weight than 1.`,
    );
  }
  if (!status.isDirectory()) {
    // Beside PEFT's own file, the settings are that file's.
    const folder = dirname(file);
    const isOther = basename(file) !== peftFile && (await exists(join(folder, peftFile)));
    return { path: file, settings: isOther ? undefined : await settingsBeside(folder) };
  }
  for (const name of fileNames) {
    const path = join(file, name);
    if (await exists(path)) return { path, settings: await settingsBeside(file) };
  }
  throw new UsageError(`${file} holds no LoRA: none of ${fileNames.join(", ")} is there.`);
}

async function settingsBeside(folder: string): Promise<LoraSettings | undefined> {
  const path = join(folder, settingsFile);
  if (!(await exists(path))) return undefined;
  const content = await readJson(path);
  if (typeof content === "object" && content !== null) return content as LoraSettings;
  throw new FormatError(`${path} holds no object; save the LoRA again.`);
}
