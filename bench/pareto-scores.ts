/** Prompt accuracy and KID of drawings, as `patchwise evaluate` measures them, with the real pictures prepared once for many sets of drawings. */
import { listRealEmoji, realEmoji } from "../src/comparison/emoji-gallery-node.ts";
import { judged, openShippedJudge } from "../src/comparison/evaluate-node.ts";
import {
  referenceOf,
  type Scores,
  scoresOf,
  verdictsOf,
} from "../src/comparison/prompt-scores-node.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import type { EvaluationPrompt } from "../src/evaluation/prompts.ts";
import type { Picture } from "../src/pictures/picture.ts";

export interface Scorer {
  score(answers: readonly EvaluationPrompt[], pictures: readonly Picture[]): Promise<Scores>;
  dispose(): Promise<void>;
}

export async function openScorer(): Promise<Scorer> {
  const set = await realEmoji(await listRealEmoji(), () => undefined);
  const judge = await openShippedJudge(nodeBackend("cpu"));
  const { features } = await judge.extractFeatures(set.pixels);
  const reference = referenceOf(set, features, ["noto", "flat", "twemoji", "emojione"]);
  return {
    async score(answers, pictures) {
      const drawings = await judged(judge, pictures);
      return scoresOf(answers, drawings, verdictsOf(answers, drawings, reference), reference, []);
    },
    dispose: async () => judge.dispose(),
  };
}
