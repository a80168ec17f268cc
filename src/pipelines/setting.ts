/**
 * The mechanism of the settings table (`settings.ts`): what a row says, and what follows from rows whichever they are. A row
 * gives the type and range of a setting, its default, its spelling on the command line, and whether pictures record it.
 */
import * as z from "zod";
import { nearestNames, quote, UsageError } from "../engine/errors.ts";
import { shown } from "../engine/options.ts";
import type { Clip } from "../pictures/clip.ts";
import { isPicture, type Picture, type PictureShape } from "../pictures/picture.ts";
import type { ImageModel } from "./image-model.ts";

/** A command-line option of a setting. */
export interface SettingFlag {
  /** As commander takes it, such as "--steps <n>". */
  readonly flag: string;
  readonly parse:
    | "text"
    | "number"
    | "numbers"
    | "pair"
    | "picture"
    | "pictures"
    | "mask"
    | "clip"
    | "flag";
  /** The setting's own help unless given. */
  readonly help?: string;
  /** The members of the setting that the option's numbers become, where the setting is an object. */
  readonly members?: readonly string[];
}

/** What the default of a setting may depend on. */
export interface SettingDefaults {
  readonly model: ImageModel;
  readonly image: Picture | undefined;
  readonly mask: Picture | undefined;
  /** The image or frames whose size is drawn. */
  readonly like: PictureShape | undefined;
  /** True if guidance can have an effect: there is a condition, and something to lead away from. */
  readonly guidable: boolean;
}

export interface SettingRow<T extends z.ZodType = z.ZodType, D = unknown> {
  readonly type: T;
  /** Completes the sentence "steps must be …". */
  readonly expected: string;
  readonly help: string;
  readonly flags: readonly SettingFlag[];
  /** Other spellings that requests may use: those of diffusers and transformers.js. */
  readonly aliases?: readonly string[];
  /** The process that the setting belongs to; both unless given. */
  readonly only?: ImageModel["process"]["kind"];
  /** True if the metadata of a picture leave it out. */
  readonly unrecorded?: boolean;
  readonly default?: (defaults: SettingDefaults) => D;
  /** The value as it is used. @throws UsageError if the model cannot be drawn with it */
  readonly forModel?: (value: z.output<T>, model: ImageModel) => z.output<T>;
}

/** Gives a row the types of its own value and default. */
export function setting<T extends z.ZodType, D = undefined>(
  row: SettingRow<T, D>,
): SettingRow<T, D> {
  return row;
}

type Rows = Readonly<Record<string, SettingRow>>;

/**
 * Values by the rows' own names, each checked by its row.
 *
 * @param fields names, also aliases, and values; undefined counts as not given
 * @param elsewhere what to give instead of names that are no settings
 * @param beside names of options that are no settings, for suggestions
 * @throws UsageError for an unknown name, a setting given twice, or a value of another type or out of range
 */
export function checkedFields(
  rows: Rows,
  fields: readonly (readonly [name: string, value: unknown])[],
  elsewhere: Readonly<Record<string, string>>,
  beside: readonly string[],
): Readonly<Record<string, unknown>> {
  const aliases = new Map(
    Object.entries(rows).flatMap(([name, row]) => row.aliases?.map((alias) => [alias, name]) ?? []),
  );
  const names = [...Object.keys(rows), ...beside];
  const given: Record<string, unknown> = {};
  for (const [spelled, value] of fields) {
    if (value === undefined) continue;
    const name = Object.hasOwn(rows, spelled) ? spelled : aliases.get(spelled);
    if (name === undefined) {
      const near = nearestNames(spelled, [...names, ...aliases.keys()]);
      const known = new Set(near.map((each) => aliases.get(each) ?? each));
      const instead = Object.hasOwn(elsewhere, spelled) ? elsewhere[spelled] : undefined;
      throw new UsageError(
        `There is no option ${quote(spelled)}; ${instead !== undefined ? `give ${instead}.` : known.size > 0 ? `did you mean ${[...known].join(" or ")}?` : `give one of ${names.join(", ")}.`}`,
      );
    }
    if (given[name] !== undefined) {
      throw new UsageError(`${name} was given twice, once as ${spelled}; give it once.`);
    }
    given[name] = checkedValue(name, rows[name]!, value);
  }
  return given;
}

function checkedValue(name: string, { type, expected }: SettingRow, value: unknown): unknown {
  const result = type.safeParse(value);
  if (result.success) return result.data;
  throw new UsageError(`${name} must be ${expected}, got ${shown(value)}.`);
}

/** Returns true if a value is a `Clip` with all of its bytes. */
export function isClip(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const { frames, height, ...frame } = value as Clip;
  return Number.isInteger(frames) && frames > 0 && isPicture({ ...frame, height: height * frames });
}

/** The rows as a JSON schema of an object with an optional property for each. */
export function jsonSchemaOf(rows: Rows): object {
  const properties = Object.entries(rows).map(([name, { type, help }]) => {
    return [name, jsonTypeOf(type).optional().describe(help)] as const;
  });
  return z.toJSONSchema(z.strictObject(Object.fromEntries(properties)), { io: "input" });
}

/** A type as JSON has it, in which pictures are base64 of a file. */
function jsonTypeOf(type: z.ZodType): z.ZodType {
  if (type instanceof z.ZodReadonly) return jsonTypeOf(type.unwrap() as z.ZodType);
  if (type instanceof z.ZodArray && type.element instanceof z.ZodCustom) {
    return z.array(z.base64());
  }
  return type instanceof z.ZodCustom ? z.base64() : type;
}
