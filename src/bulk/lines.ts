/** The lines of a file of prompts: one picture each. */
import { FormatError, quote, UsageError } from "../engine/errors.ts";
import { isRecord } from "../engine/records.ts";
import {
  checkedRequest,
  type GenerateRequest,
  type SettingName,
  settingNames,
  settingRow,
} from "../pipelines/settings.ts";
import { checkPictureName, comparedName } from "./names.ts";

/** One picture to draw. */
export interface PromptLine {
  /** Number of the line in its file, from 1. */
  readonly number: number;
  /** Name of its picture, without an extension. */
  readonly name: string;
  readonly request: GenerateRequest;
}

/** Kinds of settings that name a file on the command line. */
const files = new Set<string>(["picture", "pictures", "clip", "mask"]);

/** Settings that a line cannot have: pictures to start from, and the number of pictures. */
export const singleSettings: readonly SettingName[] = settingNames.filter(
  (name) => name !== "count" && !settingRow(name).flags.some(({ parse }) => files.has(parse)),
);

/** The forms of a file of prompts, by the ending of its name. */
const readers: Readonly<Record<string, (text: string) => Readonly<Record<string, unknown>>>> = {
  ".jsonl": fieldsOf,
  ".ndjson": fieldsOf,
  ".txt": (text) => ({ prompt: text }),
};

/** Lines that cannot be read; each is reported in a sentence of its own. */
const TOLD = 3;

/**
 * Reads a file of prompts. In `.jsonl` (also `.ndjson`), a line is an object with `prompt` or `class`, any other setting of a drawing
 * under one of its names, `size` as a text such as "64x48", and a `name` for its picture. In `.txt`, a line is a prompt. Empty lines
 * are left out but counted.
 *
 * @param text the file's content
 * @param file its name, for errors
 * @param defaults settings of lines that do not give them; `seed` is that of line 1, and each further line has the next one
 * @example promptLines('{"prompt":"red heart","seed":7}\n', "a.jsonl", {}) // [{ number: 1, name: "000001", request: { prompt: "red heart", seed: 7 } }]
 * @throws FormatError that names file and lines, if any line cannot be read or two of them have pictures of one name; UsageError if the
 *   file is of no known form
 */
export function promptLines(text: string, file: string, defaults: GenerateRequest): PromptLine[] {
  const ending = /\.[^.]*$/.exec(file)?.[0].toLowerCase() ?? "";
  const read = Object.hasOwn(readers, ending) ? readers[ending]! : undefined;
  if (!read) {
    throw new UsageError(
      `${file} does not say by the ending of its name what it holds; name it .jsonl for an object a line, or .txt for a prompt a line.`,
    );
  }
  const problems: string[] = [];
  const lines: PromptLine[] = [];
  /** The line of each name, in the form in which file systems compare them. */
  const named = new Map<string, PromptLine>();
  for (const [i, content] of text
    .replace(/^\ufeff/, "")
    .split(/\r\n|\n/)
    .entries()) {
    if (content.trim() === "") continue;
    const number = i + 1;
    try {
      const line = promptLine(read(content), number, defaults);
      const key = comparedName(line.name);
      const earlier = named.get(key);
      if (earlier) throw new UsageError(takenName(line, earlier));
      named.set(key, line);
      lines.push(line);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      const { message } = error;
      const clause = message.charAt(0).toLowerCase() + message.slice(1);
      problems.push(`line ${number}: ${clause.replace(/\.$/, "")}`);
    }
  }
  if (problems.length > 0) {
    const more = problems.length - TOLD;
    const told = problems.slice(0, TOLD);
    if (more > 0) told.push(`and ${more} more of its lines cannot be read`);
    throw new FormatError(`${file}, ${joined([...told, "nothing was drawn"])}.`);
  }
  if (lines.length === 0) {
    throw new FormatError(`${file} has no line with a prompt; give at least one.`);
  }
  return lines;
}

/** Clauses as one text. A question ends a sentence. */
function joined(clauses: readonly string[]): string {
  return clauses.reduce((before, clause) =>
    before.endsWith("?")
      ? `${before} ${clause.charAt(0).toUpperCase()}${clause.slice(1)}`
      : `${before}; ${clause}`,
  );
}

function takenName({ name }: PromptLine, earlier: PromptLine): string {
  const why =
    name === earlier.name ? "" : `, which some file systems take for the same as ${quote(name)}`;
  return `Line ${earlier.number} has a picture of the name ${quote(earlier.name)} already${why}; give each a name of its own.`;
}

function fieldsOf(text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new UsageError(
      `This is not JSON (${(cause as Error).message}): ${quote(text.trim())}; give an object such as {"prompt": "red heart"}.`,
      { cause },
    );
  }
  if (isRecord(value)) return value;
  throw new UsageError(
    `Expected an object such as {"prompt": "red heart"}, got ${quote(text.trim())}.`,
  );
}

function promptLine(
  { name, ...fields }: Readonly<Record<string, unknown>>,
  number: number,
  defaults: GenerateRequest,
): PromptLine {
  if (name !== undefined) checkPictureName(name);
  const own = checkedRequest(fields);
  const given = settingNames.filter((each) => own[each] !== undefined);
  const wrong = given.find((each) => !singleSettings.includes(each));
  if (wrong === "count") {
    throw new UsageError("A line is one picture, so it takes no count; give a line for each seed.");
  }
  if (wrong !== undefined) {
    throw new UsageError(
      `A line takes no ${wrong}, since it holds text only; draw from pictures with patchwise generate.`,
    );
  }
  const { signal: _, onProgress: __, ...request } = { ...defaults, ...own };
  const seed = own.seed ?? (defaults.seed ?? 0) + number - 1;
  return {
    number,
    name: name ?? String(number).padStart(6, "0"),
    request: { ...request, seed },
  };
}
