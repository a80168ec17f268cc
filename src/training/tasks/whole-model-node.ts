/** Trainings of a whole network. */
import { arrayWeights } from "../../engine/runtime/stored-weight.ts";
import { join } from "node:path";
import { countParameters } from "../../engine/passes/cost.ts";
import { graphOf } from "../../engine/graph/graph.ts";
import { fork, randomKey } from "../../engine/random/random.ts";
import { UsageError } from "../../engine/errors.ts";
import { modelFiles, tokenSampler } from "../../models/card.ts";
import { writeFileAtomic } from "../../weights/sources/atomic-node.ts";
import type { TrainingConfig } from "../config/config.ts";
import { denoising } from "./denoiser-node.ts";
import type { Feed } from "../feeds/feed-node.ts";
import { initialWeights, openWords } from "./initial-weights-node.ts";
import { conditionOf, networkOf } from "../config/network.ts";
import { objective, wordsKey } from "./objective.ts";
import type { Arrays, Plan, Subject, Surroundings } from "./plan-node.ts";
import { writeModel } from "../run/run-folder-node.ts";

export function wholeModelPlan(config: TrainingConfig, surroundings: Surroundings): Plan {
  return {
    config,
    recorded: config,
    subject: (feed) => wholeModel(config, feed, surroundings),
    close: () => Promise.resolve(),
  };
}

async function wholeModel(
  config: TrainingConfig,
  feed: Feed,
  surroundings: Surroundings,
): Promise<Subject> {
  const { model, training, diffusion, seed, checkpoint } = config;
  const { out } = surroundings;
  requireProcess(config, feed);
  const told = model.condition ?? conditionOf(feed.info);
  const words = told === "text" ? await openWords(model.prompt.words) : undefined;
  const network = networkOf(
    model,
    feed.image,
    feed.info,
    words && { vocabulary: words.tokenizer.size, width: words.vectors.shape[1]! },
  );
  const { loss, params } = objective(network, diffusion, training);
  const isFixed = (name: string) =>
    words !== undefined && !model.prompt.trainWords && name === wordsKey;
  const names = [...params.declared.keys()];
  const trained = names.filter((name) => !isFixed(name));
  const key = fork(randomKey(seed), "weights");
  const initial = await initialWeights(params, key, words, training.from);
  const fixed = await initial(names.filter(isFixed));
  const whole = (averages: Arrays) => ({ ...averages, ...fixed });
  const denoiser = {
    config,
    network,
    tokenizer: words?.tokenizer,
    classNames: feed.info.classes,
    drawing: async (averages: Arrays) => whole(averages),
  };
  const { cardAt, ...common } = denoising(denoiser, feed, surroundings);
  return {
    ...common,
    kind: "model",
    loss,
    trained: Object.fromEntries(trained.map((name) => [name, params.declared.get(name)!.tensor])),
    initial: () => initial(trained),
    fixed: arrayWeights(fixed),
    parameters: countParameters(graphOf({ loss })),
    async begin() {
      if (words) await writeFileAtomic(join(out, modelFiles.tokenizer), words.tokenizerFile);
    },
    write: (reached, averages) =>
      writeModel(out, cardAt(reached), whole(averages), checkpoint.weights),
  };
}

/** @throws UsageError when tokens are to be drawn by a process of continuous numbers, or the reverse */
function requireProcess(
  { diffusion: { process }, latents, sampling: { sampler, temperature } }: TrainingConfig,
  { coder }: Feed,
): void {
  if (coder?.kind === "vq" && process !== "tokens") {
    throw new UsageError(
      `latents.autoencoder ${latents!.autoencoder} is a tokenizer, but diffusion.process is ${process}; set it to tokens, or give an autoencoder of continuous latents.`,
    );
  }
  if (coder?.kind !== "vq" && process === "tokens") {
    throw new UsageError(
      `diffusion.process is tokens, but ${latents ? `latents.autoencoder ${latents.autoencoder} makes none` : "there is no tokenizer"}; name one that patchwise train made as latents.autoencoder, or set another process.`,
    );
  }
  if (temperature && process !== "tokens") {
    throw new UsageError(
      `sampling.temperature is given, but diffusion.process is ${process}, which draws no tokens; leave it out.`,
    );
  }
  if (sampler !== undefined && (sampler === tokenSampler) !== (process === "tokens")) {
    throw new UsageError(
      `sampling.sampler is ${sampler}, but a process of ${process} is not sampled by it; leave it out.`,
    );
  }
}
