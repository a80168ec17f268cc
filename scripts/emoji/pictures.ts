/** The pictures that the bundled model learns from: emoji with transparency, their colours changed, and two of them in one picture. */
import sharp from "sharp";
import { emojiGroups, type EmojiStyle } from "../../src/data/formats/emoji/captions.ts";
import {
  type EmojiPicture,
  isHeldOut,
  listEmojiPictures,
} from "../../src/data/formats/emoji/emoji-node.ts";

/** Height and width of the pictures. */
export const SIDE = 64;
/** Values of a picture. */
export const VALUES = SIDE * SIDE * 3;

/** The styles that the model draws. The first one is the default, and is learned from twice as often as the others. */
export const styles = ["noto", "flat", "twemoji", "emojione"] as const satisfies EmojiStyle[];

/** The groups of Unicode without parts of emoji and flags. */
const groups = emojiGroups.filter((group) => group !== "component" && group !== "flags");

/** An emoji in one style: red, green, blue and opacity, [64, 64, 4]. */
export interface Drawing {
  readonly hexcode: string;
  readonly label: string;
  readonly style: (typeof styles)[number];
  readonly heldOut: boolean;
  readonly rgba: Uint8Array;
}

/** Rasterises the emoji of all groups and styles; a few icons that cannot be rasterised are left out. */
export async function drawings(): Promise<readonly Drawing[]> {
  const list = await listEmojiPictures({
    kind: "emoji",
    groups: [...groups],
    styles: [...styles],
    skinTones: false,
    split: "all",
  } as Parameters<typeof listEmojiPictures>[0]);
  const all: Drawing[] = [];
  for (const picture of list) {
    const rgba = await rasterised(picture);
    if (!rgba) continue;
    const { hexcode, label, style } = picture;
    all.push({
      hexcode,
      label,
      style: style as Drawing["style"],
      heldOut: isHeldOut(hexcode),
      rgba,
    });
  }
  return all;
}

async function rasterised({ art }: EmojiPicture): Promise<Uint8Array | undefined> {
  if (art.kind !== "svg") return undefined;
  const file =
    `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ` +
    `viewBox="0 0 ${art.width} ${art.height}" width="${4 * SIDE}" height="${4 * SIDE}">${art.body}</svg>`;
  try {
    return await sharp(Buffer.from(file))
      .resize(SIDE, SIDE, {
        fit: "contain",
        background: { r: 255, g: 255, b: 255, alpha: 0 },
        kernel: "cubic",
      })
      .ensureAlpha()
      .raw()
      .toBuffer();
  } catch {
    return undefined;
  }
}

/** The colours that a prompt can ask for. */
export const colours = [
  "red",
  "orange",
  "yellow",
  "green",
  "blue",
  "purple",
  "pink",
  "brown",
  "black",
  "white",
  "grey",
] as const;
export type Colour = (typeof colours)[number];

/** Hues in degrees, with the share of saturation and the range of brightness that tell pink from red and brown from orange. */
const hues: Partial<
  Record<Colour, readonly [hue: number, saturation: number, dark: number, light: number]>
> = {
  red: [356, 1, 0, 1],
  orange: [28, 1, 0.15, 1],
  yellow: [48, 1, 0.25, 1],
  green: [125, 1, 0, 0.9],
  blue: [214, 1, 0, 1],
  purple: [277, 1, 0, 0.95],
  pink: [335, 0.55, 0.35, 1],
  brown: [22, 0.75, 0, 0.62],
};

/** Gives everything in a picture that is not an outline, white or a shadow another colour, and keeps light and dark. */
export function recoloured(rgba: Uint8Array, colour: Colour): Uint8Array {
  const result = new Uint8Array(rgba);
  const chosen = hues[colour];
  for (let i = 0; i < rgba.length; i += 4) {
    const [r, g, b] = [rgba[i]! / 255, rgba[i + 1]! / 255, rgba[i + 2]! / 255];
    const most = Math.max(r, g, b);
    const least = Math.min(r, g, b);
    const saturation = most === 0 ? 0 : (most - least) / most;
    let next: readonly number[];
    if (!chosen) {
      const light = 0.3 * r + 0.59 * g + 0.11 * b;
      const tone =
        colour === "black"
          ? 0.3 * light
          : colour === "white"
            ? 0.72 + 0.28 * light
            : 0.25 + 0.5 * light;
      next = [tone, tone, tone];
    } else {
      const [hue, share, dark, lightest] = chosen;
      // What is nearly white or black keeps its tone.
      const kept = Math.min(
        1,
        Math.max(0, (0.95 - least) / 0.12),
        Math.max(0, (most - 0.06) / 0.14),
      );
      const own = hsv(
        hue,
        Math.min(1, Math.max(0.6, saturation)) * share,
        dark + (lightest - dark) * most,
      );
      next = [r, g, b].map((value, c) => value * (1 - kept) + own[c]! * kept);
    }
    for (let c = 0; c < 3; c++) result[i + c] = Math.round(255 * next[c]!);
  }
  return result;
}

function hsv(hue: number, saturation: number, value: number): readonly number[] {
  return [5, 3, 1].map((n) => {
    const k = (n + hue / 60) % 6;
    return value - value * saturation * Math.max(0, Math.min(k, 4 - k, 1));
  });
}

/** Sides of the two emoji of a composition: the subject from the upper left corner, its companion in the lower right one. */
const [SUBJECT, COMPANION] = [50, 36];

/** Lays an emoji, made smaller, over the lower right of another. */
export function composed(subject: Uint8Array, companion: Uint8Array): Uint8Array {
  const result = new Uint8Array(SIDE * SIDE * 4);
  lay(result, subject, SUBJECT, 0, 4);
  lay(result, companion, COMPANION, SIDE - COMPANION - 1, SIDE - COMPANION - 1);
  return result;
}

/** Scales a picture to a side, by averages over areas, and lays it over another at a place. */
function lay(onto: Uint8Array, rgba: Uint8Array, side: number, left: number, top: number): void {
  const scale = SIDE / side;
  const spans = Array.from({ length: side }, (_, i) => span(i * scale, (i + 1) * scale));
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const sum = [0, 0, 0, 0];
      for (const [v, height] of spans[y]!) {
        for (const [u, width] of spans[x]!) {
          const from = (v * SIDE + u) * 4;
          const opacity = rgba[from + 3]! * height * width;
          for (let c = 0; c < 3; c++) sum[c]! += rgba[from + c]! * opacity;
          sum[3]! += opacity;
        }
      }
      const opacity = sum[3]! / (scale * scale * 255);
      if (opacity === 0) continue;
      const to = ((top + y) * SIDE + left + x) * 4;
      const under = (onto[to + 3]! / 255) * (1 - opacity);
      const all = opacity + under;
      for (let c = 0; c < 3; c++) {
        onto[to + c] = Math.round(((sum[c]! / sum[3]!) * opacity + onto[to + c]! * under) / all);
      }
      onto[to + 3] = Math.round(255 * all);
    }
  }
}

/** The pixels that a stretch of a line covers, and how much of each. */
function span(from: number, to: number): readonly (readonly [pixel: number, share: number])[] {
  const parts: [number, number][] = [];
  for (let i = Math.floor(from); i < to && i < SIDE; i++) {
    parts.push([i, Math.min(i + 1, to) - Math.max(i, from)]);
  }
  return parts;
}

/** Writes a picture on white as values in [−1, 1], [3, 64, 64], into a batch. */
export function writeValues(rgba: Uint8Array, values: Float32Array, offset: number): void {
  const area = SIDE * SIDE;
  for (let i = 0; i < area; i++) {
    const opacity = rgba[4 * i + 3]! / 255;
    for (let c = 0; c < 3; c++) {
      values[offset + c * area + i] =
        (rgba[4 * i + c]! * opacity + 255 * (1 - opacity)) / 127.5 - 1;
    }
  }
}
