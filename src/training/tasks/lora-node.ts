/**
 * Training a LoRA (`nn/lora.ts`) on a model. The weights of the model stay in their file; the low-rank matrices beside them are
 * trained, averaged and saved.
 */
import { basename, join, resolve as resolvePath } from "node:path";
import { UsageError } from "../../engine/errors.ts";
import { castWeights, type NdArray } from "../../engine/arrays/ndarray.ts";
import { countElements } from "../../engine/passes/cost.ts";
import { fork, randomKey } from "../../engine/random/random.ts";
import { recordOf } from "../../engine/records.ts";
import { type Card, modelFiles } from "../../models/card.ts";
import { loraTargets, publishedNames } from "./lora-layers.ts";
import { isTrainedFolder, shippedModel, shippedModels } from "../../models/card-node.ts";
import { checkTargets, isLora } from "../../nn/lora.ts";
import { initialize } from "../../nn/params.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { checkedWeights } from "../../weights/check-keys.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import { readTrainedFolder, requirePlausibleCard } from "../../models/card-folder.ts";
import { hubSnapshot } from "../../weights/hub/hub-node.ts";
import { parseHubId } from "../../weights/hub/id.ts";
import { diskFolder, exists } from "../../weights/sources/folder-node.ts";
import { sha256OfFile } from "../../weights/sources/hash-node.ts";
import { loraFile, mergeLora } from "../../weights/lora.ts";
import { product } from "../../weights/lora-forms.ts";
import { openSafetensorsFile, writeSafetensors } from "../../weights/safetensors/file-node.ts";
import { readFloat32, type Weights } from "../../weights/safetensors/safetensors.ts";
import type { DenoiserConfig, LoraTrainingConfig } from "../config/config.ts";
import type { DataSource } from "../loop.ts";
import type { Arrays } from "../step.ts";
import { sampleGrid } from "../run/run-folder-node.ts";
import type { FolderTask, TaskPlan, TrainContext } from "../run/train-node.ts";
import { denoiserParts, objective } from "./denoiser.ts";

interface Base {
  readonly folder: string;
  readonly card: Card;
  readonly tokenizer: Tokenizer | undefined;
  readonly weights: Weights;
}

/** @throws UsageError when the base does not exist, or cannot be trained further */
export async function loraPlan(
  config: LoraTrainingConfig,
  context: TrainContext,
): Promise<TaskPlan> {
  const base = await openBase(config.base);
  return closingOnFailure([base.weights], async () => {
    // On other weights of the base, the same steps would give another LoRA, so resuming compares their hash.
    const baseSha256 = await sha256OfFile(join(base.folder, modelFiles.weights));
    const targets = [...(config.lora.targets ?? loraTargets(base.card.network))];
    const resolved = { ...config, lora: { ...config.lora, targets } };
    const whole = configOn(base, resolved);
    return {
      config: whole,
      recorded: { ...resolved, baseSha256 },
      task: async (source) => loraTask(base, resolved, whole, source, context),
      close: () => base.weights.close(),
    };
  });
}

async function openBase(source: string): Promise<Base> {
  const folder = (await shippedModel(source)) ?? (await onHub(source)) ?? source;
  if (!(await isTrainedFolder(folder))) {
    throw new UsageError(
      `The base ${source} is neither a bundled model (${(await shippedModels()).join(", ")}) nor a folder with a ${modelFiles.card} that patchwise train wrote, here or on the Hub; give one of these.`,
    );
  }
  const { card, tokenizer } = await readTrainedFolder(diskFolder(folder));
  if (card.network.condition.kind === "text" && !tokenizer) {
    throw new UsageError(
      `The base ${source} takes text embeddings of an encoder that is not in its folder; give a model with a prompt encoder of its own.`,
    );
  }
  const weights = await openSafetensorsFile(join(folder, modelFiles.weights));
  return closingOnFailure([weights], async () => {
    requirePlausibleCard(card, weights);
    return { folder, card, tokenizer, weights };
  });
}

/** The local folder of a trained model on the Hub, after downloading what the cache lacks; undefined for what is no name there. */
async function onHub(source: string): Promise<string | undefined> {
  const id = (await exists(source)) ? undefined : parseHubId(source);
  if (!id) return undefined;
  return hubSnapshot(id, async (paths) => {
    if (id.file === undefined && paths.includes(modelFiles.card)) {
      return Object.values(modelFiles).filter((name) => paths.includes(name));
    }
    throw new UsageError(
      `The base ${source} is no model with a ${modelFiles.card}, as patchwise train writes it; give the name of a repository that has one.`,
    );
  });
}

function configOn({ folder, card }: Base, config: LoraTrainingConfig): DenoiserConfig {
  const { picture, diffusion, sampling, latents, tokens, network } = card;
  const { height, width, channels } = picture;
  return {
    ...config,
    picture: {
      size: [height, width],
      channels,
      ...(network.frames !== undefined && { frames: network.frames, fps: sampling.fps }),
    },
    diffusion,
    sampling,
    ...(latents && {
      latents: {
        autoencoder: join(folder, modelFiles.autoencoder),
        scale: latents.autoencoder.scale,
        shift: latents.autoencoder.shift,
        posterior: "sample",
        precision: "float16",
      },
    }),
    ...(tokens && {
      latents: {
        autoencoder: join(folder, modelFiles.vqgan),
        posterior: "mean",
        precision: "float32",
      },
    }),
  };
}

function loraTask(
  base: Base,
  config: LoraTrainingConfig & { readonly lora: { readonly targets: readonly string[] } },
  whole: DenoiserConfig,
  source: DataSource,
  context: TrainContext,
): FolderTask {
  const { card, tokenizer, weights } = base;
  const { lora, training, seed, checkpoint } = config;
  const { network } = card;
  const { loss, params } = objective(network, card.diffusion, { ...training, lora });
  checkTargets(params.declared, lora.targets);
  const declared = [...params.declared];
  const own = new Map(declared.filter(([name]) => isLora(name)));
  const others = new Map(declared.filter(([name]) => !isLora(name)));
  const fixed = checkedWeights({ declared: others, buffers: params.buffers }, weights);
  const scale = lora.alpha / lora.rank;
  const allWeights = async (averages: Arrays) => {
    const byLayer = matricesOf(averages);
    const merged: Record<string, NdArray> = {};
    for (const [name] of others) {
      const array = await readFloat32(weights.entries.get(name)!);
      const matrices = byLayer.get(name.replace(/\.weight$/, ""));
      const rows = [[0, array.shape[0]!]] as const;
      merged[name] = matrices
        ? mergeLora(array, [{ rows, delta: product(matrices.up, matrices.down), scale, weight: 1 }])
        : array;
    }
    return merged;
  };
  const trained = recordOf(own.keys(), (name) => own.get(name)!.tensor);
  const task = {
    ...denoiserParts(
      {
        config: whole,
        network,
        tokenizer,
        classNames: card.classes,
        owner: `The base ${config.base}`,
        allWeights,
      },
      source,
      { backend: context.backend, name: basename(resolvePath(context.out)) },
    ),
    kind: "LoRA" as const,
    loss,
    trained,
    initial: async () => initialize({ declared: own }, fork(randomKey(seed), "weights")),
    fixed,
    fixedType: lora.base,
    parameters: countElements(Object.values(trained)),
  };
  return {
    ...task,
    sample: sampleGrid(task, whole, source, context),
    async write(_trained, averages) {
      const { tensors, metadata } = loraFile(matricesOf(averages), lora, publishedNames(network));
      const stored = [...tensors].map(
        ([name, array]) => [name, castWeights(array, checkpoint.weights)] as const,
      );
      await writeSafetensors(join(context.out, modelFiles.lora), stored, metadata);
    },
  };
}

function matricesOf(averages: Arrays) {
  const layers = Object.keys(averages)
    .filter((name) => name.endsWith(".lora_A.weight"))
    .map((name) => name.slice(0, -".lora_A.weight".length));
  const matrix = (layer: string, side: "A" | "B") =>
    averages[`${layer}.lora_${side}.weight`] as NdArray<"float32">;
  return new Map(
    layers.map((layer) => [layer, { down: matrix(layer, "A"), up: matrix(layer, "B") }]),
  );
}
