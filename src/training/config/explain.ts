/** Errors in configs, explained in sentences. */
import * as z from "zod";
import { didYouMean, nearestNames, quote } from "../../engine/errors.ts";
import { loraConfigSchema, trainingConfigSchema } from "./config.ts";

/** An unknown key comes first, because other issues may follow from it: a misspelt field is also missing. */
function firstIssue(issues: readonly z.core.$ZodIssue[]): z.core.$ZodIssue {
  const first = issues.find(({ code }) => code === "unrecognized_keys") ?? issues[0]!;
  if (first.code !== "invalid_union" || first.errors.length === 0) return first;
  // Among alternatives, the value was probably meant as the one that it fits furthest.
  const inner = first.errors
    .map((alternative) => firstIssue(alternative))
    .toSorted((a, b) => b.path.length - a.path.length)[0]!;
  return inner.path.length === 0 ? first : { ...inner, path: [...first.path, ...inner.path] };
}

/**
 * Explains the first issue of a config in a sentence.
 *
 * @returns the sentence, and the path of the key that it is about
 */
export function explainIssues(
  issues: readonly z.core.$ZodIssue[],
  schema: z.ZodType,
): { readonly path: readonly string[]; readonly message: string } {
  const issue = firstIssue(issues);
  const path = issue.path.map(String);
  const place = path.length === 0 ? "a training config" : quote(path.join("."));
  if (issue.code === "unrecognized_keys") {
    const unknown = issue.keys[0]!;
    const known = keysAt(schema, path);
    if (schema === loraConfigSchema && keysAt(trainingConfigSchema(), path).includes(unknown)) {
      return {
        path: [...path, unknown],
        message: `${quote([...path, unknown].join("."))} comes from the base of a LoRA; leave it out.`,
      };
    }
    const hint = didYouMean(unknown, known, "it has");
    return {
      path: [...path, unknown],
      message: `there is no key ${quote(unknown)} in ${place}; ${hint}`,
    };
  }
  if (issue.code === "custom") return { path, message: `${place}: ${issue.message}.` };
  const expected = expectation(issue);
  // The issue of a discriminated union is about its discriminator, but its input is the map around that.
  const value =
    issue.code === "invalid_union" && issue.discriminator && isRecord(issue.input)
      ? issue.input[issue.discriminator]
      : issue.input;
  if (value === undefined) return { path, message: `${place} is missing; give ${expected}.` };
  const shown = JSON.stringify(value);
  const near =
    typeof value === "string" && "values" in issue
      ? nearestNames(value, issue.values.map(String))
      : [];
  const hint = near.length > 0 ? `; did you mean ${near.join(" or ")}?` : ".";
  return {
    path,
    message: `${place} is ${shown.length > 60 ? `${shown.slice(0, 59)}…` : shown}, but must be ${expected}${hint}`,
  };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** Describes the values that would have been right. */
function expectation(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return nouns[issue.expected] ?? `a ${issue.expected}`;
    case "invalid_value":
      return issue.values.length === 1
        ? JSON.stringify(issue.values[0])
        : `one of ${issue.values.join(", ")}`;
    case "too_small":
      if (issue.origin === "array") return `a list of at least ${issue.minimum}`;
      return `${issue.inclusive === false ? "more than" : "at least"} ${issue.minimum}`;
    case "too_big":
      if (issue.origin === "array") return `a list of at most ${issue.maximum}`;
      return `${issue.inclusive === false ? "less than" : "at most"} ${issue.maximum}`;
    case "invalid_union": {
      const options = (issue as { options?: readonly unknown[] }).options;
      if (options) return `one of ${options.join(", ")}`;
      return issue.errors.map((alternative) => expectation(alternative[0]!)).join(" or ");
    }
    default:
      return issue.message;
  }
}

const nouns: Readonly<Record<string, string>> = {
  int: "a whole number",
  number: "a number",
  string: "a text",
  boolean: "true or false",
  object: "a map of its fields",
  array: "a list",
  tuple: "a list of two, [height, width]",
};

interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
}

/** All keys that a map at this path may have. */
function keysAt(schema: z.ZodType, path: readonly string[]): readonly string[] {
  let places: readonly JsonSchema[] = [
    z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as JsonSchema,
  ];
  for (const part of path) {
    places = alternatives(places).flatMap(({ properties }) => properties?.[part] ?? []);
  }
  return [
    ...new Set(alternatives(places).flatMap(({ properties }) => Object.keys(properties ?? {}))),
  ];
}

function alternatives(schemas: readonly JsonSchema[]): readonly JsonSchema[] {
  return schemas.flatMap((schema) => {
    const inner = [...(schema.anyOf ?? []), ...(schema.oneOf ?? [])];
    return inner.length > 0 ? alternatives(inner) : [schema];
  });
}
