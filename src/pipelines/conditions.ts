/** The conditions of a request: a class, a prompt, or none, checked against what the model takes. */
import { nearestNames, quote, UsageError } from "../engine/errors.ts";
import { guidesItself } from "../models/network.ts";
import type { ImageModel } from "./image-model.ts";

/** What a network is conditioned on, checked against the model. */
export type Condition =
  /** The unconditional network. */
  | { readonly kind: "none" }
  | { readonly kind: "class"; readonly name: string; readonly index: number }
  | { readonly kind: "text"; readonly text: string };

export const unconditional: Condition = { kind: "none" };

/** Number of class names that a message lists. */
const LISTED = 8;

type Asked = {
  readonly prompt?: string | undefined;
  readonly class?: string | number | undefined;
};

/**
 * The condition of a request.
 *
 * @throws UsageError if the model takes another kind of condition, or has no such class
 */
export function resolveCondition(
  { prompt, class: label }: Asked,
  model: Pick<ImageModel, "name" | "network" | "classes">,
): Condition {
  const { name, network } = model;
  switch (network.condition.kind) {
    case "none":
      if (prompt === undefined && label === undefined) return unconditional;
      throw new UsageError(
        `${name} is unconditional and takes no ${prompt === undefined ? "class" : "prompt"}; leave it out.`,
      );
    case "class":
      if (prompt !== undefined) {
        throw new UsageError(
          `${name} draws classes and takes no prompt such as ${quote(prompt)}; give a class instead: ${someClasses(model)}.`,
        );
      }
      if (label !== undefined) return classNamed(label, model);
      throw new UsageError(`${name} draws classes; give one: ${someClasses(model)}.`);
    case "text":
      if (label !== undefined) {
        throw new UsageError(
          `${name} takes prompts and has no classes such as ${quote(String(label))}; give it as the prompt.`,
        );
      }
      if (prompt !== undefined) return textCondition(prompt);
      throw new UsageError(`${name} needs a prompt; give one, such as "a red apple".`);
  }
}

/**
 * The condition that guidance leads away from; unconditional unless given.
 *
 * @param negative a prompt or a class, whichever the model takes
 * @throws UsageError if the model is unconditional, or has no such class
 */
export function resolveNegative(
  negative: string | undefined,
  model: Pick<ImageModel, "name" | "network" | "classes">,
): Condition {
  if (negative === undefined) return unconditional;
  if (guidesItself(model.network)) {
    throw new UsageError(
      `${model.name} was distilled with its guidance and takes no negative prompt such as ${quote(negative)}; leave it out.`,
    );
  }
  switch (model.network.condition.kind) {
    case "none":
      throw new UsageError(
        `${model.name} is unconditional and takes no negative prompt such as ${quote(negative)}; leave it out.`,
      );
    case "class":
      return classNamed(negative, model);
    case "text":
      return textCondition(negative);
  }
}

function textCondition(text: string): Condition {
  return text.trim() === "" ? unconditional : { kind: "text", text };
}

/** Names come before numbers, so that classes whose names are digits can be found. */
function classNamed(
  wanted: string | number,
  model: Pick<ImageModel, "name" | "network" | "classes">,
): Condition {
  const { name, classes = new Map<string, number>(), network } = model;
  const count = network.condition.kind === "class" ? network.condition.classes : 0;
  const text = String(wanted).trim();
  const folded = (written: string) => written.normalize("NFC").toLowerCase();
  const named =
    classes.get(text) ?? [...classes].find(([known]) => folded(known) === folded(text))?.[1];
  const index = named ?? (/^\d+$/.test(text) ? Number(text) : undefined);
  if (index !== undefined && index < count) {
    const shown = [...classes].find(([, other]) => other === index)?.[0] ?? String(index);
    return { kind: "class", name: shown, index };
  }
  const nearest = nearestNames(text, classes.keys());
  throw new UsageError(
    `${name} has no class ${quote(text)}; ${nearest.length > 0 ? `the nearest are ${nearest.join(", ")}` : `give one of ${someClasses(model)}`}.`,
  );
}

function someClasses({ classes, network }: Pick<ImageModel, "network" | "classes">): string {
  const count = network.condition.kind === "class" ? network.condition.classes : 0;
  const numbers = `a number from 0 to ${count - 1}`;
  if (!classes || classes.size === 0) return numbers;
  const names = [...classes.keys()].slice(0, LISTED);
  return classes.size > LISTED ? `${names.join(", ")} … or ${numbers}` : names.join(", ");
}

/** Cards of models that need no guidance ask for 0, since diffusers guides only above 1. */
function weakGuidance(guidance: number): string {
  return guidance === 0
    ? "A guidance of 0 draws without the prompt; give 1 to draw the prompt without guidance, as cards of turbo models mean by 0."
    : `A guidance of ${guidance} weakens the prompt; give 1 to draw it without guidance, or more to strengthen it.`;
}

/** Sentences about parts of a request that have no effect: text past a token limit, unknown words, or a negative prompt without guidance. */
export function warningsOf(
  {
    condition,
    negative,
    negativePrompt,
    guidance,
  }: {
    readonly condition: Condition;
    readonly negative: Condition;
    readonly negativePrompt?: string | undefined;
    readonly guidance: number;
  },
  { encoder: reader, warnings = [] }: Pick<ImageModel, "encoder" | "warnings">,
): string[] {
  const truncated = (what: string, from: Condition) =>
    (from.kind === "text" ? (reader?.truncated(from.text) ?? []) : []).map(
      ({ encoder, tokens, text }) =>
        `The ${what} is longer than the ${tokens} tokens that ${encoder} reads; ${quote(text)} is ignored.`,
    );
  const unknown = (what: string, from: Condition) => {
    const words = from.kind === "text" ? (reader?.unknownWords?.(from.text) ?? []) : [];
    if (words.length === 0) return [];
    const them = words.length === 1 ? "it" : "them";
    return [
      `The model does not know ${words.map(quote).join(", ")} in the ${what}; say it in other words, or the picture will not show ${them}.`,
    ];
  };
  return [
    ...warnings,
    ...truncated("prompt", condition),
    ...unknown("prompt", condition),
    ...truncated("negative prompt", negative),
    ...unknown("negative prompt", negative),
    ...(negativePrompt !== undefined && guidance === 1
      ? [`The negative prompt ${quote(negativePrompt)} has no effect without guidance.`]
      : []),
    ...(guidance < 1 && condition !== unconditional ? [weakGuidance(guidance)] : []),
  ];
}
