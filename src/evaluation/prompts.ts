/** Prompts to evaluate a model with, and the right answers to them: a file of JSON lines. */
import * as z from "zod";
import { emojiStyleNames } from "../data/formats/emoji/captions.ts";
import { FormatError, nearestNames, quote, UsageError } from "../engine/errors.ts";
import { colourAskedFor, colourNames } from "./colour.ts";

const hexcode = z
  .string()
  .regex(
    /^[0-9A-Fa-f]{2,6}(-[0-9A-Fa-f]{2,6})*$/,
    'an answer is an emoji as its code points, such as "1F34E"',
  );

const promptSchema = z.strictObject({
  prompt: z.string().min(1, "a prompt has at least one letter"),
  lang: z.enum(["en", "zh"]),
  /** Scores are reported for each kind; "colour" is scored by its colour too. */
  kind: z.string().min(1, 'a kind has at least one letter, such as "training"'),
  /** How a prompt of a kind is worded; scores are reported for each form too. */
  form: z.string().min(1).optional(),
  /** Emoji that are right, as hexcodes of emojibase. */
  answers: z.array(hexcode).min(1, "there is at least one right answer"),
  /** The drawing style that the prompt asks for. */
  style: z.enum(emojiStyleNames).optional(),
});

export type EvaluationPrompt = z.infer<typeof promptSchema>;

const fields = Object.keys(promptSchema.shape);

/**
 * Reads prompts, one JSON object a line; empty lines are skipped.
 *
 * @param name what messages call the file
 * @throws UsageError when there are no prompts; FormatError that names the line of a mistake
 */
export function readPrompts(text: string, name: string): readonly EvaluationPrompt[] {
  const prompts = text.split("\n").flatMap((line, i) => {
    if (line.trim() === "") return [];
    return [parse(line, `${name}, line ${i + 1}`)];
  });
  if (prompts.length > 0) return prompts;
  throw new UsageError(
    `${name} holds no prompts; write one JSON object a line, such as {"prompt": "red apple", "lang": "en", "kind": "training", "answers": ["1F34E"]}.`,
  );
}

function parse(line: string, where: string): EvaluationPrompt {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new FormatError(`${where} is not JSON: ${(cause as Error).message}; correct it.`, {
      cause,
    });
  }
  const result = promptSchema.safeParse(value);
  if (!result.success) throw new FormatError(problem(result.error.issues[0]!, value, where));
  const { prompt, kind } = result.data;
  if (kind === "colour" && colourAskedFor(prompt) === undefined) {
    throw new FormatError(
      `${where}: the prompt ${quote(prompt)} is of kind "colour" but names none of ${colourNames.join(", ")}; name one, or give it another kind.`,
    );
  }
  return result.data;
}

function problem(issue: z.core.$ZodIssue, value: unknown, where: string): string {
  if (issue.code === "unrecognized_keys") {
    const [key] = issue.keys as [string];
    const near = nearestNames(key, fields);
    return `${where}: the key ${quote(key)} is not known; ${near.length > 0 ? `did you mean ${near.join(" or ")}` : `the keys are ${fields.join(", ")}`}?`;
  }
  const [field] = issue.path;
  if (typeof field === "string" && Object(value)[field] === undefined) {
    return `${where}: ${field} is missing; add it, such as in {"prompt": "red apple", "lang": "en", "kind": "training", "answers": ["1F34E"]}.`;
  }
  const path = issue.path.length === 0 ? "the line" : issue.path.join(".");
  return `${where}: ${path} is wrong: ${issue.message}; correct it.`;
}

/** The first `limit` prompts of each kind, in the order of the file. */
export function firstOfEachKind<P extends EvaluationPrompt>(
  prompts: readonly P[],
  limit: number,
): readonly P[] {
  const counts = new Map<string, number>();
  return prompts.filter(({ kind }) => {
    const count = (counts.get(kind) ?? 0) + 1;
    counts.set(kind, count);
    return count <= limit;
  });
}
