/** Reads a training config from YAML. Errors name the line, and unknown keys suggest the nearest known ones. */
import { isMap, isPair, isScalar, LineCounter, type Node, parseDocument } from "yaml";
import { quote, UsageError } from "../../engine/errors.ts";
import {
  autoencoderConfigSchema,
  type AutoencoderTrainingConfig,
  loraConfigSchema,
  type LoraTrainingConfig,
  type TrainingConfig,
  trainingConfigSchema,
} from "./config.ts";
import { explainIssues } from "./explain.ts";

/**
 * Reads a training config. A config with `base` or `lora` trains a LoRA, one with `autoencoder` an autoencoder.
 *
 * @param file the name of the file, for error messages
 * @param settings overrides of the form `key.path=value`
 * @param budget replaces the length of the training, which the file then need not give
 * @throws UsageError that names the line, the key, its value and what it may be
 */
export function readTrainingConfig(
  file: string,
  text: string,
  settings: readonly string[] = [],
  budget?: { readonly minutes: number } | { readonly compute: number },
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

  const training = document.get("training");
  if (budget && (training === undefined || isMap(training))) {
    for (const field of ["steps", "minutes", "compute"]) training?.delete(field);
    for (const [field, value] of Object.entries(budget)) document.setIn(["training", field], value);
  }
  const content = finite(file, () => document.toJS({ maxAliasCount: 100 }));
  const schema = schemaOf(document);
  const result = schema.safeParse(content, { reportInput: true });
  if (result.success) return result.data;
  const { path, message } = explainIssues(result.error.issues, schema);
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

/** Parses `a.b=1` to ["a.b", 1]; the value is YAML. */
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
  return [setting.slice(0, at), finite(`--set ${quote(setting)}`, () => value.toJS())];
}

/** A value without aliases that contain themselves, or that multiply to more than memory holds. */
function finite(what: string, read: () => unknown): unknown {
  try {
    const value = read();
    JSON.stringify(value);
    return value;
  } catch (cause) {
    throw new UsageError(
      `${what} has YAML aliases that contain themselves or are too many; write the values out.`,
      { cause },
    );
  }
}

/** The line of a key, or of the nearest map around it. */
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
