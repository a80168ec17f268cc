/** Trainings of a whole network. */
import { join } from "node:path";
import { countParameters } from "../engine/cost.ts";
import { graphOf } from "../engine/graph.ts";
import { fork, randomKey } from "../engine/random.ts";
import { modelFiles } from "../models/card.ts";
import { writeFileAtomic } from "../weights/atomic-node.ts";
import type { TrainingConfig } from "./config.ts";
import type { Feed } from "./feed-node.ts";
import { initialWeights, openWords } from "./initial-weights-node.ts";
import { conditionOf, networkOf } from "./network.ts";
import { objective, wordsKey } from "./objective.ts";
import type { Arrays, Plan, Subject } from "./plan-node.ts";
import { writeModel } from "./run-folder-node.ts";

export function wholeModelPlan(config: TrainingConfig): Plan {
  return {
    config,
    recorded: config,
    subject: (feed) => wholeModel(config, feed),
    close: () => Promise.resolve(),
  };
}

async function wholeModel(config: TrainingConfig, feed: Feed): Promise<Subject> {
  const { model, training, diffusion, seed, checkpoint } = config;
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
  return {
    kind: "model",
    network,
    tokenizer: words?.tokenizer,
    classNames: feed.info.classes,
    loss,
    trained: Object.fromEntries(trained.map((name) => [name, params.declared.get(name)!.tensor])),
    initial: () => initial(trained),
    fixed: (name) => fixed[name] && { kind: "array", array: fixed[name] },
    parameters: countParameters(graphOf({ loss })),
    async begin(folder) {
      if (words) await writeFileAtomic(join(folder, modelFiles.tokenizer), words.tokenizerFile);
    },
    drawing: async (averages) => whole(averages),
    write: (folder, card, averages) =>
      writeModel(folder, card, whole(averages), checkpoint.weights),
  };
}
