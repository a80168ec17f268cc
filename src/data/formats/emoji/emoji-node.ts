/**
 * Reads emoji in several drawing styles from npm packages: captioned pictures that need no download of their
 * own.
 */
import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import sharp from "sharp";
import * as z from "zod";
import { FormatError, UsageError } from "../../../engine/errors.ts";
import { fork, randomKey, uniform } from "../../../engine/random/random.ts";
import { type PictureShape, withChannels } from "../../../pictures/picture.ts";
import type { DataSet } from "../../dataset.ts";
import { emojiCaptions, emojiGroups, type EmojiStyle, emojiStyles } from "./captions.ts";
import type { DataConfigOf } from "../../config.ts";
import { locatePackageFiles } from "./packages-node.ts";

const CAPTIONS = "emojibase-data/en/data.json";

// Vector pictures are drawn this many times larger and scaled down, because thin lines would otherwise alias.
const SUPERSAMPLING = 4;

/** One emoji drawn in one style. */
export interface EmojiPicture {
  /** Unicode code points as emojibase writes them, such as "1F34E". */
  readonly hexcode: string;
  readonly label: string;
  readonly style: EmojiStyle;
  readonly name: string;
  readonly captions: readonly string[];
  readonly art: Art;
}

/** SVG content, or the path of a picture file. */
type Art =
  | { readonly kind: "svg"; readonly body: string; readonly width: number; readonly height: number }
  | { readonly kind: "file"; readonly path: string };

/** Finds the picture of an emoji in one style. */
type Find = (hexcode: string, label: string) => Art | undefined;

/**
 * Opens the emoji set at a shape, on white. Proportions are kept.
 *
 * @throws UsageError that names the packages that are not installed, or if the config selects no emoji
 */
export async function openEmoji(
  config: DataConfigOf<"emoji">,
  shape: PictureShape,
): Promise<DataSet> {
  const all = await listEmojiPictures(config);
  const count = Math.min(config.limit ?? all.length, all.length);
  const items = Array.from({ length: count }, (_, i) => all[Math.floor((i * all.length) / count)]!);
  return {
    name: "emoji",
    count,
    classes: undefined,
    captioned: true,
    memory: items.reduce((sum, { art }) => sum + (art.kind === "svg" ? art.body.length : 0), 0),
    nameOf: (index) => items[index]!.name,
    async example(index) {
      const item = items[index]!;
      const pixels = await drawEmoji(item, shape);
      return { pixels, label: undefined, captions: item.captions };
    },
    close: () => Promise.resolve(),
  };
}

/**
 * Lists the pictures that a config selects, without drawing them. All styles of an emoji are neighbours.
 *
 * @throws UsageError that names the packages that are not installed, or if the config selects no emoji
 */
export async function listEmojiPictures(
  config: DataConfigOf<"emoji">,
): Promise<readonly EmojiPicture[]> {
  const styles = [...new Set(config.styles)];
  const files = [CAPTIONS, ...styles.map(indexOf)];
  const [listPath, ...stylePaths] = locatePackageFiles(files, "The emoji set");
  const emoji = choose(await readJson(listPath!, emojiList), config);
  const perStyle = await Promise.all(
    styles.map(async (style, i) => {
      const path = stylePaths[i]!;
      const find =
        emojiStyles[style].kind === "webp" ? await findFiles(path) : await findIcons(path);
      return emoji.map(({ hexcode, label, tags }): EmojiPicture | undefined => {
        const art = find(hexcode, label);
        const name = `${label} (${style})`;
        const captions = emojiCaptions(label, tags, style);
        return art && { hexcode, label, style, name, captions, art };
      });
    }),
  );
  const all = emoji.flatMap((_, i) => perStyle.flatMap((items) => items[i] ?? []));
  if (all.length > 0) return all;
  throw new UsageError(
    "These `styles`, `groups` and `split` select no emoji; choose more of them.",
  );
}

/** The file by which the package of a style is located. */
function indexOf(style: EmojiStyle): string {
  const { package: name, kind } = emojiStyles[style];
  return `${name}/${kind === "webp" ? "package.json" : "icons.json"}`;
}

const named = z.object({ label: z.string(), hexcode: z.string() });

const emojiList = z.array(
  named.extend({
    tags: z.array(z.string()).default([]),
    group: z.int().optional(),
    skins: z.array(named).default([]),
  }),
);

interface Emoji {
  readonly label: string;
  readonly hexcode: string;
  readonly tags: readonly string[];
}

/** The emoji that a config selects. All skin tones of an emoji are held out together. */
function choose(list: z.infer<typeof emojiList>, config: DataConfigOf<"emoji">): Emoji[] {
  const { groups, split, skinTones } = config;
  return list.flatMap(({ label, hexcode, tags, group, skins }) => {
    const name = group === undefined ? undefined : emojiGroups[group];
    if (groups && !groups.some((each) => each === name)) return [];
    if (split !== "all" && isHeldOut(hexcode) !== (split === "held-out")) return [];
    const tones = skinTones ? skins.map((skin) => ({ ...skin, tags })) : [];
    return [{ label, hexcode, tags }, ...tones];
  });
}

/** Returns true if an emoji is held out. One in twenty is, chosen by its code points alone. */
export function isHeldOut(hexcode: string): boolean {
  const key = fork(fork(randomKey(0), "held-out emoji"), codePoints(hexcode));
  return uniform(key, [1]).data[0]! < 0.05;
}

/** Code points in the form on which all packages agree: without the variation selector, which some omit. */
export function codePoints(hexcode: string): string {
  return hexcode.toLowerCase().replaceAll("-fe0f", "");
}

/** A label without spaces and hyphens: "Côte d’Ivoire" and "cote-d-ivoire" both become "cotedivoire". */
function slug(label: string): string {
  return label
    .normalize("NFKD")
    .toLowerCase()
    .replace(/[^a-z0-9]/g, "");
}

async function findFiles(packageJson: string): Promise<Find> {
  const folder = join(dirname(packageJson), "assets");
  const files = await readdir(folder);
  const byCode = new Map(files.map((file) => [codePoints(file.replace(/\.webp$/, "")), file]));
  return (hexcode) => {
    const file = byCode.get(codePoints(hexcode));
    return file === undefined ? undefined : { kind: "file", path: join(folder, file) };
  };
}

const iconSet = z.object({
  width: z.number().positive().default(16),
  height: z.number().positive().default(16),
  icons: z.record(
    z.string(),
    z.object({
      body: z.string(),
      width: z.number().positive().optional(),
      height: z.number().positive().optional(),
      hidden: z.boolean().default(false),
    }),
  ),
  aliases: z
    .record(z.string(), z.object({ parent: z.string(), hFlip: z.boolean().default(false) }))
    .default({}),
});

/** Finds icons by the code points in `chars.json` if the package has it, and by their names otherwise. */
async function findIcons(iconsJson: string): Promise<Find> {
  const set = await readJson(iconsJson, iconSet);
  const chars = await readJson(
    join(dirname(iconsJson), "chars.json"),
    z.record(z.string(), z.string()),
  );
  const byCode = new Map(Object.entries(chars).map(([code, name]) => [codePoints(code), name]));
  // If an alias and an icon have the same slug, the icon is used.
  const names = [...Object.keys(set.aliases), ...Object.keys(set.icons)];
  const bySlug = new Map(names.map((name) => [slug(name), name]));
  return (hexcode, label) => {
    const name = byCode.get(codePoints(hexcode)) ?? bySlug.get(slug(label));
    if (name === undefined) return undefined;
    const alias = set.icons[name] ? undefined : set.aliases[name];
    const icon = set.icons[alias?.parent ?? name];
    if (!icon || icon.hidden) return undefined;
    const { width = set.width, height = set.height } = icon;
    const body = alias?.hFlip
      ? `<g transform="matrix(-1 0 0 1 ${width} 0)">${icon.body}</g>`
      : icon.body;
    return { kind: "svg", body, width, height };
  };
}

async function readJson<T extends z.ZodType>(path: string, schema: T): Promise<z.infer<T>> {
  let text: unknown;
  try {
    text = JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    throw new FormatError(`Cannot read ${path}; reinstall its package with npm.`, { cause: error });
  }
  const result = schema.safeParse(text);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new FormatError(
    `${path} has an unknown format (at ${issue!.path.join(".")}: ${issue!.message}); install another version of its package.`,
  );
}

/**
 * Draws an emoji on white: pixels [height, width, channels].
 *
 * @throws FormatError when the art cannot be drawn, as a few icons of the packages cannot
 */
export async function drawEmoji(
  { art, name }: EmojiPicture,
  shape: PictureShape,
): Promise<Uint8Array> {
  const { height, width, channels } = shape;
  try {
    const picture = sharp(art.kind === "svg" ? svgFile(art, shape) : art.path)
      .flatten({ background: "#fff" })
      .resize(width, height, { fit: "contain", background: "#fff", kernel: "cubic" })
      .toColourspace("srgb");
    const pixels = await picture.raw().toBuffer();
    return withChannels({ height, width, channels: 3, pixels }, channels).pixels;
  } catch (error) {
    throw new FormatError(`Cannot draw the emoji ${name}: ${(error as Error).message}.`, {
      cause: error,
    });
  }
}

/** Renders the SVG larger than the picture; `viewBox` centres it. */
function svgFile(art: Art & { kind: "svg" }, { height, width }: PictureShape): Uint8Array {
  const file =
    `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ` +
    `viewBox="0 0 ${art.width} ${art.height}" ` +
    `width="${width * SUPERSAMPLING}" height="${height * SUPERSAMPLING}">${art.body}</svg>`;
  return new TextEncoder().encode(file);
}
