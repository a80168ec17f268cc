/**
 * Trainings of LoRA (`nn/lora.ts`) on a trained model: its weights stay in their file, and what is trained, averaged and saved
 * are the narrow matrices beside them.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { UsageError } from "../../engine/errors.ts";
import { castArray, type NdArray, sizeOf } from "../../engine/arrays/ndarray.ts";
import { fork, randomKey } from "../../engine/random/random.ts";
import { resolve } from "../../engine/graph/shape.ts";
import { type Card, modelFiles } from "../../models/card.ts";
import { publishedNames } from "./lora-layers.ts";
import { isTrainedFolder, shippedModel, shippedModels } from "../../models/card-node.ts";
import { checkTargets, isLora } from "../../nn/lora.ts";
import { initialize } from "../../nn/params.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { checkedWeights } from "../../weights/check-keys.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import { readTrainedFolder } from "../../models/card-folder.ts";
import { diskFolder } from "../../weights/sources/folder-node.ts";
import { loraFile, mergeLora } from "../../weights/lora.ts";
import { openSafetensorsFile, writeSafetensors } from "../../weights/safetensors/file-node.ts";
import { readFloat32, type Weights } from "../../weights/safetensors/safetensors.ts";
import type { DenoiserConfig, LoraTrainingConfig } from "../config/config.ts";
import { denoising } from "./denoiser-node.ts";
import type { Feed } from "../feeds/feed-node.ts";
import { objective } from "./objective.ts";
import type { Arrays, Plan, Subject, Surroundings } from "./plan-node.ts";

interface Base {
  readonly folder: string;
  readonly card: Card;
  readonly tokenizer: Tokenizer | undefined;
  /** Open. */
  readonly weights: Weights;
}

/** @throws UsageError when there is no such base, or it cannot be trained further */
export async function loraPlan(
  config: LoraTrainingConfig,
  surroundings: Surroundings,
): Promise<Plan> {
  const base = await openBase(config.base);
  return closingOnFailure([base.weights], async () => {
    // Beside other weights the same steps would lead elsewhere.
    const baseSha256 = await sha256(join(base.folder, modelFiles.weights));
    const whole = configOn(base, config);
    return {
      config: whole,
      recorded: { ...config, baseSha256 },
      subject: async (feed) => loraOn(base, config, whole, feed, surroundings),
      close: () => base.weights.close(),
    };
  });
}

async function openBase(source: string): Promise<Base> {
  const folder = (await shippedModel(source)) ?? source;
  if (!(await isTrainedFolder(folder))) {
    throw new UsageError(
      `The base ${source} is neither a model that comes along (${(await shippedModels()).join(", ")}) nor a folder that patchwise train wrote, with a ${modelFiles.card}; give one of these.`,
    );
  }
  const { card, tokenizer } = await readTrainedFolder(diskFolder(folder));
  if (card.network.condition.kind === "text" && !tokenizer) {
    throw new UsageError(
      `The base ${source} takes texts as embeddings of an encoder that it does not bring; give one that reads prompts itself.`,
    );
  }
  return {
    folder,
    card,
    tokenizer,
    weights: await openSafetensorsFile(join(folder, modelFiles.weights)),
  };
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

function configOn({ folder, card }: Base, config: LoraTrainingConfig): DenoiserConfig {
  const { picture, diffusion, sampling, latents, tokens } = card;
  const { height, width, channels } = picture;
  return {
    ...config,
    picture: { size: [height, width], channels },
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

function loraOn(
  base: Base,
  config: LoraTrainingConfig,
  whole: DenoiserConfig,
  feed: Feed,
  surroundings: Surroundings,
): Subject {
  const { card, tokenizer, weights } = base;
  const { lora, training, seed, checkpoint } = config;
  const { network } = card;
  const classes = classesOf(base, config.base, feed);
  const { loss, params } = objective(network, card.diffusion, { ...training, lora });
  checkTargets(params.declared, lora.targets);
  const declared = [...params.declared];
  const own = new Map(declared.filter(([name]) => isLora(name)));
  const others = new Map(declared.filter(([name]) => !isLora(name)));
  const fixed = checkedWeights({ declared: others, buffers: params.buffers }, weights);
  const scale = lora.alpha / lora.rank;
  const drawing = async (averages: Arrays) => {
    const byLayer = matricesOf(averages);
    const merged: Record<string, NdArray> = {};
    for (const [name] of others) {
      const array = await readFloat32(weights.entries.get(name)!);
      const matrices = byLayer.get(name.replace(/\.weight$/, ""));
      const rows = [[0, array.shape[0]!]] as const;
      merged[name] = matrices
        ? mergeLora(array, [{ ...matrices, layer: name, rows, scale, weight: 1 }])
        : array;
    }
    return merged;
  };
  const denoiser = {
    config: whole,
    network,
    tokenizer,
    classNames: card.classes,
    classes,
    drawing,
  };
  const { cardAt: _, ...common } = denoising(denoiser, feed, surroundings);
  return {
    ...common,
    kind: "LoRA",
    loss,
    trained: Object.fromEntries([...own].map(([name, { tensor }]) => [name, tensor])),
    initial: async () => initialize({ declared: own }, fork(randomKey(seed), "weights")),
    fixed,
    parameters: [...own.values()].reduce(
      (sum, { tensor }) => sum + sizeOf(resolve(tensor.shape, undefined)),
      0,
    ),
    begin: () => Promise.resolve(),
    async write(_reached, averages) {
      const { tensors, metadata } = loraFile(matricesOf(averages), lora, publishedNames(network));
      const stored = [...tensors].map(
        ([name, array]) => [name, castArray(array, checkpoint.weights)] as const,
      );
      await writeSafetensors(join(surroundings.out, modelFiles.lora), stored, metadata);
    },
  };
}

/** What the base is told of the data's pictures: texts, or classes that it knows. */
function classesOf(
  { card: { network, classes: known } }: Base,
  source: string,
  { info: { name, captioned, classes } }: Feed,
): readonly number[] | undefined {
  const { kind } = network.condition;
  if (kind === "text" && !captioned) {
    throw new UsageError(
      `The base ${source} is told texts, but ${name} has no captions; add them in metadata.jsonl.`,
    );
  }
  if (kind !== "class") return undefined;
  if (!classes) {
    throw new UsageError(
      `The base ${source} is told classes, but ${name} has none; sort the pictures into one folder a class.`,
    );
  }
  return classes.map((each) => {
    const index = known?.indexOf(each) ?? -1;
    if (index >= 0) return index;
    throw new UsageError(
      `The base ${source} knows no class "${each}", which ${name} has; name the folders by its classes: ${known?.slice(0, 5).join(", ")}${(known?.length ?? 0) > 5 ? ", …" : ""}.`,
    );
  });
}

function matricesOf(averages: Arrays) {
  const layers = Object.keys(averages)
    .filter((name) => name.endsWith(".lora_A.weight"))
    .map((name) => name.slice(0, -".lora_A.weight".length));
  return new Map(
    layers.map((layer) => [
      layer,
      {
        down: averages[`${layer}.lora_A.weight`] as NdArray<"float32">,
        up: averages[`${layer}.lora_B.weight`] as NdArray<"float32">,
      },
    ]),
  );
}
