/**
 * The models and LoRAs that requests may name. Models are those that the server was started with, and LoRAs the entries of one
 * folder, each by a plain name; so no request can name any other file.
 */
import { readdir } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import { samplers } from "../diffusion/samplers/index.ts";
import { didYouMean, quote, UsageError } from "../engine/errors.ts";
import { pick } from "../engine/records.ts";
import { tokenSampler } from "../models/card.ts";
import { canDrop, imageSizes } from "../models/network.ts";
import type { ImageModel } from "../pipelines/image-model.ts";
import type { ChosenLora } from "../pipelines/open/lora-node.ts";
import { openModel } from "../pipelines/open/open-node.ts";
import { takesReferences } from "../pipelines/references.ts";
import { resolveRequest } from "../pipelines/settings.ts";
import { closeAll } from "../weights/sources/closing.ts";
import { Problem } from "./problem.ts";
import type { LoraChoice, ModelInfo } from "./wire.ts";

export interface ListedModel {
  readonly name: string;
  /** The name, folder or file by which it is opened. */
  readonly source: string;
  /** Without programs: for checking requests. */
  readonly model: ImageModel;
  readonly info: ModelInfo;
}

export interface Catalogue {
  readonly models: readonly ListedModel[];
  /** The model of a name, or the first one. @throws Problem if there is none of this name */
  model(name: string | undefined): ListedModel;
  /** Adds the model of a folder. @throws UsageError or FormatError if it cannot be opened */
  add(name: string, folder: string): Promise<void>;
  /** Takes out a model that was added, if it is there. */
  remove(name: string): Promise<void>;
  loraNames(): Promise<readonly string[]>;
  /** The files of LoRAs. @throws Problem if there is none of a name */
  loras(chosen: readonly LoraChoice[]): Promise<readonly ChosenLora[]>;
  close(): Promise<void>;
}

/**
 * Opens the models, so that a wrong name is known at the start.
 *
 * @param loraFolder the folder whose entries are LoRAs; there are none unless given
 * @throws UsageError if two models have one name, or as `openModel` does
 */
export async function openCatalogue(
  sources: readonly string[],
  loraFolder: string | undefined,
): Promise<Catalogue> {
  const byName = new Map<string, ListedModel>();
  const models: ListedModel[] = [];
  const add = async (name: string, source: string) => {
    const model = await openModel(source);
    const listed = { name, source, model, info: infoOf(name, model) };
    byName.set(name, listed);
    models.push(listed);
  };
  try {
    for (const source of sources) {
      const name = nameOf(source);
      if (byName.has(name)) {
        throw new UsageError(
          `Two models have the name ${quote(name)}; rename one of their folders, or give one.`,
        );
      }
      await add(name, source);
    }
  } catch (error) {
    await closeAll(models.map(({ model }) => model));
    throw error;
  }
  const loraNames = async () =>
    loraFolder === undefined
      ? []
      : (await readdir(loraFolder)).filter((name) => !name.startsWith(".")).toSorted();
  return {
    models,
    add,
    async remove(name) {
      const listed = byName.get(name);
      if (!listed) return;
      byName.delete(name);
      models.splice(models.indexOf(listed), 1);
      await closeAll([listed.model]);
    },
    model(name) {
      const found = name === undefined ? models[0] : byName.get(name);
      if (found) return found;
      throw new Problem(
        404,
        `There is no model ${quote(name ?? "")}; ${didYouMean(name ?? "", [...byName.keys()])}`,
        { code: "model_not_found", param: "model" },
      );
    },
    loraNames,
    async loras(chosen) {
      const known = await loraNames();
      return chosen.map(({ name, weight }) => {
        if (!known.includes(name)) {
          throw new Problem(
            404,
            known.length === 0
              ? `There is no LoRA ${quote(name)}: this server has none; start it with --loras and their folder.`
              : `There is no LoRA ${quote(name)}; ${didYouMean(name, known)}`,
            { code: "lora_not_found", param: "loras" },
          );
        }
        return { file: join(loraFolder!, name), weight };
      });
    },
    close: () => closeAll(models.map(({ model }) => model)),
  };
}

/** The last part of a path without its extension; the name of a bundled model, and owner/name of one on the Hub, stay whole. */
function nameOf(source: string): string {
  const isPath = /^[./~]|^[A-Za-z]:|\\|\.(?:safetensors|gguf)$/.test(source);
  if (!isPath) return source;
  const name = basename(source);
  return [".safetensors", ".gguf"].includes(extname(name)) ? basename(name, extname(name)) : name;
}

function infoOf(name: string, model: ImageModel): ModelInfo {
  const { condition, frames } = model.network;
  const { kind } = model.process;
  const asked = condition.kind === "class" ? { class: 0 } : {};
  const { settings } = resolveRequest(condition.kind === "text" ? { prompt: "a" } : asked, model);
  const scale = settings.width / model.network.size[1];
  const { unit, most, fixed } = imageSizes(model.network);
  return {
    name,
    condition: condition.kind,
    ...(model.classes && { classes: [...model.classes.keys()] }),
    process: kind,
    samplers:
      kind === "tokens"
        ? [tokenSampler]
        : [...new Set([model.process.sampler, ...Object.keys(samplers)])],
    sizes: {
      unit: unit * scale,
      ...(most !== undefined && { most: most * scale }),
      fixed,
    },
    guidable: canDrop(model.network),
    references: takesReferences(model),
    clips: frames !== undefined,
    defaults: pick<unknown>({ ...settings }, (each) =>
      formFields.has(each),
    ) as ModelInfo["defaults"],
  };
}

const formFields = new Set(["steps", "sampler", "guidance", "width", "height", "frames", "fps"]);
