/** From a YAML file to a config: every mistake is told with its line, and an unknown key with the nearest known one. */
import { isMap, isPair, isScalar, LineCounter, type Node, parseDocument } from "yaml";
import { z } from "zod";
import { UsageError } from "../../engine/errors.ts";
import { nearestNames } from "../../engine/messages.ts";
import { quote } from "../../engine/messages.ts";
import {
  autoencoderConfigSchema,
  type AutoencoderTrainingConfig,
  loraConfigSchema,
  type LoraTrainingConfig,
  type TrainingConfig,
  trainingConfigSchema,
} from "./config.ts";

/**
 * Reads a config: of a LoRA where it names a `base` or says `lora`, and of an autoencoder where it says `autoencoder`.
 *
 * @param file how messages call it
 * @param settings `key.path=value` from the command line, which override the file's
 * @throws UsageError that names the line, the key, what it is and what it may be
 */
export function readTrainingConfig(
  file: string,
  text: string,
  settings: readonly string[] = [],
): TrainingConfig | LoraTrainingConfig | AutoencoderTrainingConfig {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const [problem] = document.errors;
  if (problem) {
    const { line } = lines.linePos(problem.pos[0]);
    throw new UsageError(
      `${file}, line ${line}, is not YAML: ${problem.message.replace(/\.$/, "")}.`,
    );
  }
  if (!isMap(document.contents)) {
    throw new UsageError(
      `${file} is not a training config: it must be a map with data, picture and training.`,
    );
  }
  const overridden = new Map(settings.map(parseSetting));
  for (const [path, value] of overridden) {
    try {
      document.setIn(path.split("."), value);
    } catch (error) {
      throw new UsageError(
        `--set ${path}: a part of this path is a single value in ${file}, and has no keys; set that whole part instead.`,
        { cause: error },
      );
    }
  }

  const content: unknown = document.toJS({ maxAliasCount: 100 });
  const schema = schemaOf(document);
  const result = schema.safeParse(content, { reportInput: true });
  if (result.success) return result.data;
  const { path, message } = explained(firstIssue(result.error.issues), schema);
  const line = lineOf(document.contents, path, lines);
  const key = path.join(".");
  if ([...overridden.keys()].some((set) => set === key)) {
    throw new UsageError(`--set ${key}: ${message}`);
  }
  throw new UsageError(`${file}${line === undefined ? "" : `, line ${line}`}: ${message}`);
}

function schemaOf(document: { has(key: string): boolean }) {
  if (document.has("base") || document.has("lora")) return loraConfigSchema;
  return document.has("autoencoder") ? autoencoderConfigSchema : trainingConfigSchema();
}

/** An unknown key first: what else is wrong may follow from it, as a missing field does from a misspelt one. */
function firstIssue(issues: readonly z.core.$ZodIssue[]): z.core.$ZodIssue {
  const first = issues.find(({ code }) => code === "unrecognized_keys") ?? issues[0]!;
  if (first.code !== "invalid_union" || first.errors.length === 0) return first;
  // Of the alternatives, the one that the value fits furthest.
  const inner = first.errors
    .map((alternative) => firstIssue(alternative))
    .toSorted((a, b) => b.path.length - a.path.length)[0]!;
  return inner.path.length === 0 ? first : { ...inner, path: [...first.path, ...inner.path] };
}

/** The sentence for an issue, and the path of the key that it is about. */
function explained(
  issue: z.core.$ZodIssue,
  schema: z.ZodType,
): { path: readonly string[]; message: string } {
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
    const near = nearestNames(unknown, known);
    const hint =
      near.length > 0 ? `did you mean ${near.join(" or ")}?` : `it has ${known.join(", ")}.`;
    return {
      path: [...path, unknown],
      message: `there is no key ${quote(unknown)} in ${place}; ${hint}`,
    };
  }
  if (issue.code === "custom") return { path, message: `${place}: ${issue.message}.` };
  const wanted = expectation(issue);
  // Where a field decides between alternatives, the issue is its, but the input is the map around it.
  const value =
    issue.code === "invalid_union" && issue.discriminator && isRecord(issue.input)
      ? issue.input[issue.discriminator]
      : issue.input;
  if (value === undefined) return { path, message: `${place} is missing; give ${wanted}.` };
  const shown = JSON.stringify(value);
  const near =
    typeof value === "string" && "values" in issue
      ? nearestNames(value, issue.values.map(String))
      : [];
  const hint = near.length > 0 ? `; did you mean ${near.join(" or ")}?` : ".";
  return {
    path,
    message: `${place} is ${shown.length > 60 ? `${shown.slice(0, 59)}…` : shown}, but must be ${wanted}${hint}`,
  };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** What would have been right, as a noun. */
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

/** Every key that a map at this place may have. */
function keysAt(schema: z.ZodType, path: readonly string[]): readonly string[] {
  let places: readonly JsonSchema[] = [z.toJSONSchema(schema, { io: "input" }) as JsonSchema];
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

/** `a.b=1` → ["a.b", 1], its value read as YAML. */
function parseSetting(setting: string): [path: string, value: unknown] {
  const at = setting.indexOf("=");
  if (at <= 0) {
    throw new UsageError(
      `--set ${quote(setting)} is not of the form key.path=value, such as training.batch=32.`,
    );
  }
  const value = parseDocument(setting.slice(at + 1));
  if (value.errors.length > 0) {
    throw new UsageError(`--set ${quote(setting)}: its value is not YAML; quote it.`);
  }
  return [setting.slice(0, at), value.toJS()];
}

/** The line on which a key, or else the nearest map around it, stands. */
function lineOf(root: Node, path: readonly string[], lines: LineCounter): number | undefined {
  let node: unknown = root;
  let line: number | undefined;
  for (const part of path) {
    if (!isMap(node)) break;
    const pair = node.items.find(
      (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === part,
    );
    if (!pair) break;
    const start = (pair.key as Node).range?.[0];
    if (start !== undefined) line = lines.linePos(start).line;
    node = pair.value;
  }
  return line;
}
