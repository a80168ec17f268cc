/** What the suite `pareto` draws: prompts with right answers for the bundled model, and the classes of a model of classes. */
import { readFileSync } from "node:fs";
import { packageFile } from "../src/engine/package-node.ts";
import { type EvaluationPrompt, readPrompts } from "../src/evaluation/prompts.ts";
import type { GenerateRequest } from "../src/pipelines/settings.ts";

export interface Subject {
  readonly answer: EvaluationPrompt;
  readonly request: Pick<GenerateRequest, "prompt" | "class" | "seed">;
}

/** Prompts of the bundled set at even distances, of subjects and colours that the model was trained on. */
export function promptSubjects(count: number): readonly Subject[] {
  const file = packageFile("models/prompts/emoji.jsonl");
  const known = readPrompts(readFileSync(file, "utf8"), file).filter(
    ({ kind }) => kind === "training" || kind === "colour",
  );
  return Array.from({ length: Math.min(count, known.length) }, (_, i) => {
    const answer = known[Math.floor((i * known.length) / count)]!;
    return { answer, request: { prompt: answer.prompt, seed: i } };
  });
}

/**
 * The classes of a model in turn.
 *
 * @throws RangeError if their names do not begin with code points, as `scripts/emoji/class-folders.ts` names them
 */
export function classSubjects(classes: readonly string[], count: number): readonly Subject[] {
  return Array.from({ length: count }, (_, i) => {
    const name = classes[i % classes.length]!;
    const [, hexcode, label] = /^([0-9A-F]{4,5}) (.+)$/.exec(name) ?? [];
    if (hexcode === undefined || label === undefined) {
      throw new RangeError(
        `The class ${name} does not begin with the code points of an emoji; train on the folders of scripts/emoji/class-folders.ts.`,
      );
    }
    const answer = { prompt: label, lang: "en", kind: "training", answers: [hexcode] } as const;
    return { answer: { ...answer, answers: [hexcode] }, request: { class: name, seed: i } };
  });
}
