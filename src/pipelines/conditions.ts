/** What a network is told, from words and names to its inputs. */
import type { Conditions } from "../diffusion/denoiser.ts";
import { stackRows } from "../diffusion/arrays.ts";
import { UsageError } from "../engine/errors.ts";
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { nearestNames } from "../engine/messages.ts";
import { quote } from "../engine/messages.ts";
import type { ImageModel, RunStage } from "./image-model.ts";
import type { GenerateRequest } from "./pipeline.ts";

/** A condition that was found sound. */
export type Told =
  /** Nothing: the condition is left out, if the model has one. */
  | { readonly kind: "nothing" }
  | { readonly kind: "class"; readonly name: string; readonly index: number }
  | { readonly kind: "text"; readonly text: string };

export const nothing: Told = { kind: "nothing" };

/** As many names as a message lists. */
const LISTED = 8;

/**
 * What a request tells the model to draw.
 *
 * @throws UsageError when it is not the model's kind of condition, or a class that the model does not know
 */
export function toldBy(request: GenerateRequest, model: ImageModel): Told {
  const { prompt, class: label } = request;
  const { name, network } = model;
  switch (network.condition.kind) {
    case "none":
      if (prompt === undefined && label === undefined) return nothing;
      throw new UsageError(
        `${name} draws nothing in particular, so ${prompt === undefined ? "a class" : "a prompt"} means nothing to it; leave it out.`,
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
          `${name} draws prompts and knows no class such as ${quote(String(label))}; give it as the prompt.`,
        );
      }
      if (prompt !== undefined) return textOf(prompt);
      throw new UsageError(`${name} draws what a prompt says; give one, such as "a red apple".`);
  }
}

/**
 * What guidance leads away from.
 *
 * @throws UsageError when the model cannot be told that
 */
export function avoidedBy({ negative }: GenerateRequest, model: ImageModel): Told {
  if (negative === undefined) return nothing;
  switch (model.network.condition.kind) {
    case "none":
      throw new UsageError(
        `${model.name} draws nothing in particular, so the negative ${quote(negative)} means nothing to it; leave it out.`,
      );
    case "class":
      return classNamed(negative, model);
    case "text":
      return textOf(negative);
  }
}

function textOf(text: string): Told {
  return text.trim() === "" ? nothing : { kind: "text", text };
}

/** A name counts before a number, so that classes named by digits are found. */
function classNamed(wanted: string | number, model: ImageModel): Told {
  const { name, classes = new Map<string, number>(), network } = model;
  const count = network.condition.kind === "class" ? network.condition.classes : 0;
  const text = String(wanted).trim();
  const exact = classes.get(text) ?? byLetters(text, classes);
  const index = exact ?? (/^\d+$/.test(text) ? Number(text) : undefined);
  if (index !== undefined && index < count) {
    return { kind: "class", name: nameOfClass(index, classes), index };
  }
  const nearest = nearestNames(text, classes.keys());
  throw new UsageError(
    `${name} knows no class ${quote(text)}; ${nearest.length > 0 ? `the nearest are ${nearest.join(", ")}` : `give one of ${someClasses(model)}`}.`,
  );
}

function byLetters(text: string, classes: ReadonlyMap<string, number>): number | undefined {
  const folded = text.toLowerCase();
  for (const [name, index] of classes) if (name.toLowerCase() === folded) return index;
  return undefined;
}

function nameOfClass(index: number, classes: ReadonlyMap<string, number>): string {
  for (const [name, other] of classes) if (other === index) return name;
  return String(index);
}

function someClasses({ classes, network }: ImageModel): string {
  const count = network.condition.kind === "class" ? network.condition.classes : 0;
  const numbers = `a number from 0 to ${count - 1}`;
  if (!classes || classes.size === 0) return numbers;
  const names = [...classes.keys()].slice(0, LISTED);
  return classes.size > LISTED ? `${names.join(", ")} … or ${numbers}` : names.join(", ");
}

/** Conditions of one row for each text. */
export type Embed = (texts: readonly string[]) => Promise<readonly Conditions[]>;

/** As many texts as are remembered; those of a long prompt take some megabytes. */
const REMEMBERED = 8;

/** Asks the model's embedder about what it was not asked lately. */
export function rememberedEmbeddings({ embedder }: ImageModel, run: RunStage): Embed {
  /** In the order of their last use. */
  const known = new Map<string, Conditions>();
  return async (texts) => {
    const unknown = [...new Set(texts)].filter((text) => !known.has(text));
    const made = unknown.length > 0 ? await embedder!.embed(unknown, run) : [];
    const found = new Map([...known, ...unknown.map((text, i) => [text, made[i]!] as const)]);
    for (const text of texts) {
      known.delete(text);
      known.set(text, found.get(text)!);
    }
    for (const text of [...known.keys()].slice(0, -REMEMBERED)) known.delete(text);
    return texts.map((text) => found.get(text)!);
  };
}

/** The inputs for `count` images of each of several conditions, all of one model. */
export async function conditionsFor(
  told: readonly Told[],
  count: number,
  { network: { condition } }: ImageModel,
  embed: Embed,
): Promise<readonly Conditions[]> {
  switch (condition.kind) {
    case "none":
      return told.map(() => ({}));
    case "class":
      return told.map((each) => {
        // The row behind the classes stands for none.
        const index = each.kind === "class" ? each.index : condition.classes;
        return { y: ndarray("int64", [count], new Array<number>(count).fill(index)) };
      });
    case "text": {
      const embedded = await embed(told.map((each) => (each.kind === "text" ? each.text : "")));
      return embedded.map((conditions) => repeated(conditions, count));
    }
  }
}

function repeated(conditions: Conditions, count: number): Conditions {
  return Object.fromEntries(
    Object.entries(conditions).map(([name, row]) => [
      name,
      stackRows(new Array<NdArray>(count).fill(row)),
    ]),
  );
}
