/** Folders in diffusers' layout: `model_index.json`, and a folder each for transformer, autoencoder and scheduler. */
import { basename, join, resolve } from "node:path";
import { diffusersScheduler } from "../diffusion/diffusers-schedulers.ts";
import { FormatError } from "../engine/errors.ts";
import { diffusersDiTConfig, diffusersDiTKeys } from "../models/dit.ts";
import { checkedWeights } from "../weights/check-keys.ts";
import { checkTables } from "../weights/check-tables.ts";
import { joinQkv } from "../weights/join-qkv.ts";
import { quote } from "../weights/json.ts";
import { openSafetensorsFile } from "../weights/safetensors-node.ts";
import { diffusersWeights } from "../weights/diffusers-weights-node.ts";
import { closingOnFailure, exists, readFields } from "../weights/files-node.ts";
import { tracedForDrawing } from "./graphs.ts";
import type { ImageModel } from "./image-model.ts";
import { schedulerProcess } from "./process.ts";
import { openVAE } from "./vae-node.ts";

/** What diffusers' pipeline draws with unless told otherwise. */
const defaults = { steps: 50, guidance: 4 };

/**
 * Opens a DiTPipeline.
 *
 * @param vae in place of the folder's own
 * @throws FormatError when it is of another class, or a component is missing or unsound
 */
export async function openDiffusersFolder(
  path: string,
  vae: string | undefined,
): Promise<ImageModel> {
  const indexFile = join(path, "model_index.json");
  const index = await readFields(indexFile);
  const pipeline = index.text("_class_name");
  if (pipeline !== "DiTPipeline") {
    throw new FormatError(
      `${indexFile} describes a ${pipeline}, but of diffusers' pipelines only DiTPipeline is known; give a DiT.`,
    );
  }
  const transformer = await component(path, "transformer", "config.json");
  const scheduler = await component(path, "scheduler", "scheduler_config.json");
  const decoderPath = vae ?? (await component(path, "vae", "config.json")).folder;

  const schedulerFields = await readFields(scheduler.config);
  const schedulerName = schedulerFields.text("_class_name");
  const process = schedulerProcess(
    schedulerName,
    diffusersScheduler(schedulerName, schedulerFields),
  );
  const config = diffusersDiTConfig(await readFields(transformer.config));
  const network = { kind: "dit" as const, ...config };

  const file = await openSafetensorsFile(await diffusersWeights(transformer.folder));
  return closingOnFailure([file], async (opened) => {
    const joined = joinQkv(file);
    const { params } = tracedForDrawing(network);
    const weights = checkedWeights(params, joined, diffusersDiTKeys);
    await checkTables(params, joined, diffusersDiTKeys);
    const decoder = await openVAE(decoderPath, config.channels);
    opened.push(decoder.file);
    return {
      name: basename(resolve(path)),
      network,
      weights,
      process,
      classes: classNames(index.texts("id2label", {})),
      decoder,
      defaults,
      close: async () => {
        for (const each of opened) await each.close();
      },
    };
  });
}

async function component(path: string, name: string, configName: string) {
  const folder = join(path, name);
  const config = join(folder, configName);
  if (await exists(config)) return { folder, config };
  throw new FormatError(
    `${path} lacks its ${name}: there is no ${quote(`${name}/${configName}`)}; download the whole folder.`,
  );
}

/** A class may have several names, parted by commas; of classes that share one the last has it, as in diffusers. */
function classNames(labels: Readonly<Record<string, string>>): ReadonlyMap<string, number> {
  const classes = new Map<string, number>();
  for (const [id, names] of Object.entries(labels)) {
    for (const name of names.split(",")) classes.set(name.trim(), Number(id));
  }
  return classes;
}
