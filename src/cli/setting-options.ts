/**
 * Generation settings as options of `patchwise generate`: one option for each flag of the settings table, and the request that
 * the given options form.
 */
import { type Command, Option } from "commander";
import { UsageError } from "../engine/errors.ts";
import { defined, recordOf } from "../engine/records.ts";
import type { SettingFlag } from "../pipelines/setting.ts";
import {
  checkedRequest,
  type GenerateRequest,
  type SettingName,
  settingNames,
  settingRow,
} from "../pipelines/settings.ts";
import { readPictureFile } from "../pictures/decode-node.ts";
import { readMaskFile } from "../pictures/mask-node.ts";
import type { Clip } from "../pictures/clip.ts";
import { readClip } from "../pictures/clip-file-node.ts";
import type { Picture } from "../pictures/picture.ts";
import type { PictureMetadata } from "../pictures/metadata.ts";
import { numberOption, numbersOption, pairOption, sizeOption } from "./options.ts";

type Parser = (name: string) => (text: string) => unknown;

/** Pictures are read later, because parsers are synchronous. */
const parsers: { readonly [K in SettingFlag["parse"]]?: Parser } = {
  number: numberOption,
  numbers: numbersOption,
  pair: pairOption,
};

type Given = Picture | Clip | readonly Picture[];
const readers: Partial<Record<SettingFlag["parse"], (paths: string[]) => Promise<Given>>> = {
  picture: ([path]) => readPictureFile(path!),
  pictures: (paths) => Promise.all(paths.map((path) => readPictureFile(path))),
  clip: async ([path]) => (await readClip(path!)).clip,
  mask: ([path]) => readMaskFile(path!),
};

/** Values of the options by commander's names. */
export type OptionValues = Readonly<Record<string, unknown>>;

/** Adds the options of some settings. */
export function addOptionsOf(names: readonly SettingName[], command: Command): Command {
  for (const name of names) {
    const { help, flags } = settingRow(name);
    for (const { flag, parse, help: own = help } of flags) {
      const option = new Option(flag, own);
      const parser = parsers[parse]?.(flag.split(" ")[0]!);
      command.addOption(parser ? option.argParser(parser) : option);
    }
  }
  return command;
}

export function addSettingOptions(command: Command): Command {
  return addSizeOption(addOptionsOf(settingNames, command));
}

export function addSizeOption(command: Command): Command {
  return command.option("--size <WxH>", "width and height in pixels, such as 64x48", sizeOption);
}

/**
 * Returns the request of the given options, where settings that are not given have those of a recorded picture.
 *
 * @throws UsageError if the recorded picture was drawn from an image, which it does not hold
 */
export async function requestOf(
  prompt: string | undefined,
  options: OptionValues,
  recorded: PictureMetadata | undefined,
): Promise<GenerateRequest> {
  const { width, height } = (options["size"] ?? {}) as { width?: number; height?: number };
  const typed: Partial<Record<SettingName, unknown>> = { prompt, width, height };
  for (const name of settingNames) {
    const value = await valueOf(settingRow(name).flags, options);
    if (value !== undefined) typed[name] = value;
  }
  const request = recorded ? { ...recordedRequest(recorded, typed), ...defined(typed) } : typed;
  return checkedRequest(mergedMembers(request, typed, recorded));
}

/** The value of a setting: that of its single flag, or an object of its given flags. */
async function valueOf(flags: readonly SettingFlag[], options: OptionValues): Promise<unknown> {
  let object: Record<string, unknown> | undefined;
  for (const { flag, parse, members } of flags) {
    const given = options[new Option(flag).attributeName()];
    if (given === undefined) continue;
    const read = readers[parse];
    const value = read ? await read([given as string | string[]].flat()) : given;
    if (!members) return value;
    const values = members.length === 1 ? [value] : (value as readonly unknown[]);
    object = { ...object, ...Object.fromEntries(members.map((each, i) => [each, values[i]])) };
  }
  return object;
}

/** An object setting whose flags were given in part takes its other members from the recorded picture. */
function mergedMembers(
  request: Partial<Record<SettingName, unknown>>,
  typed: Partial<Record<SettingName, unknown>>,
  recorded: PictureMetadata | undefined,
): object {
  const merged = settingNames.filter(
    (name) => typed[name] !== undefined && settingRow(name).flags.some(({ members }) => members),
  );
  const before = { ...recorded } as unknown as Partial<Record<SettingName, object>>;
  const whole = merged.map((name) => [name, { ...before[name], ...(typed[name] as object) }]);
  return { ...request, ...Object.fromEntries(whole) };
}

/** The settings that a picture records. A given prompt or class replaces both of the recorded ones. */
function recordedRequest(
  recorded: PictureMetadata,
  typed: Partial<Record<SettingName, unknown>>,
): Partial<Record<SettingName, unknown>> {
  const fields = recorded as Readonly<Record<string, unknown>>;
  if (recorded.strength !== undefined && typed.image === undefined) {
    throw new UsageError(
      `The picture was drawn from an image, at a strength of ${recorded.strength}, which it does not contain; give the image as --image.`,
    );
  }
  const frames = [typed.image, typed.lastImage, typed.extend];
  if (fields["aroundFrames"] && frames.every((each) => each === undefined)) {
    throw new UsageError(
      "The clip was drawn around given frames, which it does not name; give them as --image, --last-image or --extend.",
    );
  }
  if (fields["masked"] && typed.mask === undefined) {
    throw new UsageError(
      "The picture was drawn in the mask of an image, which it does not contain; give the mask as --mask.",
    );
  }
  if (fields["referred"] !== undefined && typed.references === undefined) {
    throw new UsageError(
      "The picture was drawn with reference pictures, which it does not contain; give them as --reference.",
    );
  }
  const others = typed.prompt !== undefined || typed.class !== undefined;
  const names = settingNames.filter(
    (name) => !settingRow(name).unrecorded && !(others && (name === "prompt" || name === "class")),
  );
  return defined(recordOf(names, (name) => fields[name]));
}
