/** Chooses the files of a repository on the Hugging Face Hub that make up a model, and downloads only those. */
import { basename, dirname, extname, join } from "node:path/posix";
import { nearestNames, quote, UsageError } from "../../engine/errors.ts";
import { modelFiles } from "../../models/card.ts";
import { weightVariants } from "../../weights/diffusers-weights.ts";
import { readFields, readJson } from "../../weights/sources/folder-node.ts";
import type { HubId } from "../../weights/hub/id.ts";
import { type HubChoice, type HubOptions, hubSnapshot } from "../../weights/hub/hub-node.ts";
import { readShardIndex } from "../../weights/safetensors/sharded.ts";
import { closing } from "../../weights/sources/closing.ts";
import { fileSource } from "../../weights/sources/file-node.ts";
import { loraFiles, loraSettings } from "../../weights/lora-settings.ts";
import { diffusersIndex, pipelineClass, unneededComponents } from "./diffusers.ts";
import type { OpenModelOptions } from "./options.ts";

/**
 * The local folder or file of a model on the Hub, after downloading what the cache lacks.
 *
 * @throws what `hubSnapshot` throws; UsageError if the repository has no such file, or no model of a known kind
 */
export async function downloadModel(
  id: HubId,
  options: OpenModelOptions,
  hub: HubOptions | undefined,
): Promise<string> {
  const { file } = id;
  if (file === undefined) return hubSnapshot(id, filesOfFolder(id, options), hub);
  return join(await hubSnapshot(id, filesOfFile(id.repo, file), hub), file);
}

/**
 * The local folder or file of a LoRA on the Hub, after downloading what the cache lacks.
 *
 * @throws what `hubSnapshot` throws; UsageError if the repository has no such file, or several that may be the LoRA
 */
export async function downloadLora(id: HubId, hub: HubOptions | undefined): Promise<string> {
  let chosen = id.file;
  const snapshot = await hubSnapshot(
    id,
    async (paths) => {
      const files = paths.filter((path) => !path.includes("/") && path.endsWith(".safetensors"));
      const usual = loraFiles.find((name) => files.includes(name));
      chosen ??= usual ?? (files.length === 1 ? files[0] : undefined);
      if (chosen === undefined || !paths.includes(chosen)) {
        throw new UsageError(
          `${id.repo} has ${id.file === undefined ? "no file that alone may be the LoRA" : `no file ${quote(id.file)}`}; give one of its files as ${id.repo}:FILE: ${filesListed(paths.filter((path) => extname(path) === ".safetensors"))}.`,
        );
      }
      return [chosen, ...paths.filter((path) => path === loraSettings)];
    },
    hub,
  );
  return join(snapshot, chosen!);
}

/** A file, and the shards that it lists if it is an index. */
function filesOfFile(repo: string, file: string): HubChoice {
  return async (paths, locate) => {
    if (!paths.includes(file)) {
      const candidates = paths.filter((path) => extname(path) === ".safetensors");
      const near = nearestNames(file, candidates);
      throw new UsageError(
        `${repo} has no file ${quote(file)}; ${filesListed(near.length > 0 ? near : candidates)}.`,
      );
    }
    if (extname(file) !== ".json") return [file];
    const path = await locate(file);
    if (path === undefined) return undefined;
    return closing(await fileSource(path), async (source) => {
      const shards = new Set((await readShardIndex(source)).values());
      return [file, ...[...shards].map((shard) => join(dirname(file), shard))];
    });
  };
}

function filesOfFolder({ repo }: HubId, options: OpenModelOptions): HubChoice {
  return async (paths, locate) => {
    if (paths.includes(modelFiles.card)) {
      return Object.values(modelFiles).filter((name) => paths.includes(name));
    }
    if (!paths.includes(diffusersIndex)) {
      const files = paths.filter((path) => extname(path) === ".safetensors");
      throw new UsageError(
        `${repo} holds neither a ${modelFiles.card}, as patchwise train writes it, nor a ${diffusersIndex}, as diffusers does; give one of its files as ${repo}:FILE: ${filesListed(files)}.`,
      );
    }
    const index = await locate(diffusersIndex);
    if (index === undefined) return undefined;
    const name = (await readFields(index)).text("_class_name");
    const row = pipelineClass(`${repo}: ${diffusersIndex}`, name);
    const unneeded = unneededComponents(row, options);
    const components = Object.entries((await readJson(index)) as Record<string, unknown>)
      // A component that the pipeline has not is [null, null].
      .filter(([each, value]) => !unneeded.has(each) && Array.isArray(value) && value[1] !== null)
      .map(([each]) => each);
    const needed = paths.filter(
      (path) => components.includes(dirname(path)) && kinds.has(extname(path)),
    );
    return [diffusersIndex, ...withoutVariants(needed)];
  };
}

/** Configs, vocabularies, SentencePiece models and weights, without the same weights as pickles or for other libraries. */
const kinds = new Set([".json", ".txt", ".model", ".safetensors"]);

/** Leaves one variant of the same weights: the one that opening prefers. */
function withoutVariants(paths: readonly string[]): string[] {
  const kept = new Map<string, string>();
  for (const path of paths) {
    const { weights, variant } = variantOf(path);
    const best = kept.get(weights) ?? variant;
    kept.set(weights, rankOf(variant) < rankOf(best) ? variant : best);
  }
  return paths.filter((path) => {
    const { weights, variant } = variantOf(path);
    return kept.get(weights) === variant;
  });
}

/** The preference of a variant, lowest first; variants that cannot be opened come last. */
function rankOf(variant: string): number {
  const rank = weightVariants.indexOf(variant);
  return rank === -1 ? Infinity : rank;
}

/** `model.fp16-00001-of-00002.safetensors` and `model.safetensors.index.fp16.json` are of `model`, variant "fp16". */
function variantOf(path: string): { readonly weights: string; readonly variant: string } {
  if (!basename(path).includes(".safetensors")) return { weights: path, variant: "" };
  const [stem, ...rest] = basename(path)
    .replace(/-\d{5}-of-\d{5}/, "")
    .split(".");
  const variant = rest.filter((part) => !["safetensors", "index", "json"].includes(part));
  return { weights: join(dirname(path), stem!, "weights"), variant: variant.join(".") };
}

function filesListed(files: readonly string[]): string {
  if (files.length === 0) return "it has no .safetensors file";
  return `it has ${files.slice(0, 5).join(", ")}${files.length > 5 ? `, and ${files.length - 5} more` : ""}`;
}
