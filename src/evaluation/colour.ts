/** Measures how well drawings have the colours that their prompts ask for. */
import type { Picture } from "../pictures/picture.ts";

/** Hue in degrees, saturation and lightness from 0 to 1 (HSL), and the largest difference from white, from 0 to 1. */
interface Pixel {
  readonly hue: number;
  readonly saturation: number;
  readonly lightness: number;
}

interface Colour {
  readonly en: RegExp;
  readonly zh: RegExp;
  readonly fits: (pixel: Pixel) => boolean;
}

const hueFrom =
  (low: number, high: number) =>
  ({ hue, saturation, lightness }: Pixel) => {
    const within = low < high ? hue >= low && hue < high : hue >= low || hue < high;
    return within && saturation >= 0.2 && lightness >= 0.12 && lightness <= 0.93;
  };

/**
 * The colours that are understood. Ranges of hue overlap where people differ, as between red and pink; they are wide enough
 * for nearly every real emoji of that colour.
 */
const colours = {
  red: { en: /\bred\b/i, zh: /红/, fits: hueFrom(338, 18) },
  orange: { en: /\borange\b/i, zh: /橙/, fits: hueFrom(12, 46) },
  yellow: { en: /\byellow\b/i, zh: /黄/, fits: hueFrom(34, 68) },
  green: { en: /\bgreen\b/i, zh: /绿/, fits: hueFrom(68, 172) },
  blue: { en: /\bblue\b/i, zh: /蓝/, fits: hueFrom(172, 252) },
  purple: { en: /\bpurple\b/i, zh: /紫/, fits: hueFrom(252, 322) },
  pink: { en: /\bpink\b/i, zh: /粉/, fits: hueFrom(290, 8) },
  brown: {
    en: /\bbrown\b/i,
    zh: /棕|褐/,
    fits: (pixel) => (pixel.hue < 48 || pixel.hue >= 345) && pixel.lightness < 0.56,
  },
  black: {
    en: /\bblack\b/i,
    zh: /黑/,
    fits: ({ saturation, lightness }) => lightness < 0.36 && (saturation < 0.35 || lightness < 0.2),
  },
  white: {
    en: /\bwhite\b/i,
    zh: /白/,
    fits: ({ saturation, lightness }) => lightness > 0.68 && (saturation < 0.45 || lightness > 0.9),
  },
} as const satisfies Record<string, Colour>;

export type ColourName = keyof typeof colours;

export const colourNames = Object.keys(colours) as ColourName[];

/** The first colour that a prompt names in English or Chinese. "粉红" is pink, although it holds the word for red. */
export function colourAskedFor(prompt: string): ColourName | undefined {
  const places = colourNames.flatMap((name) => {
    const found = [colours[name].en, colours[name].zh].map((word) => prompt.search(word));
    const at = found.filter((place) => place >= 0);
    return at.length > 0 ? [{ name, at: Math.min(...at) }] : [];
  });
  return places.sort((a, b) => a.at - b.at)[0]?.name;
}

/** A drawing obeys a colour if at least this share of its object has it. */
export const OBEYED = 0.5;

/** Pixels that differ from the background by at most this, of 255 in the channel that differs most, belong to it. */
const BACKGROUND = 16;

/**
 * The share in [0, 1] of the object's pixels that have a colour. Everything that differs from the background is the object,
 * and the background is white; white objects are found by what they enclose: every pixel from the first to the last one of
 * its row that differs.
 *
 * @returns 0 for a picture that is all background
 */
export function colourShare(picture: Picture, name: ColourName): number {
  const { width, height, channels, pixels } = picture;
  let [object, right] = [0, 0];
  for (let y = 0; y < height; y++) {
    const row = Array.from({ length: width }, (_, x) => {
      const at = (y * width + x) * channels;
      return [
        pixels[at]!,
        pixels[at + (channels > 1 ? 1 : 0)]!,
        pixels[at + channels - 1]!,
      ] as const;
    });
    const differs = row.map((own) => 255 - Math.min(...own) > BACKGROUND);
    const [first, last] = [differs.indexOf(true), differs.lastIndexOf(true)];
    for (const [x, own] of row.entries()) {
      const counts = name === "white" ? first >= 0 && x >= first && x <= last : differs[x]!;
      if (!counts) continue;
      object++;
      if (colours[name].fits(hsl(...own))) right++;
    }
  }
  return object === 0 ? 0 : right / object;
}

function hsl(red: number, green: number, blue: number): Pixel {
  const [r, g, b] = [red / 255, green / 255, blue / 255];
  const [most, least] = [Math.max(r, g, b), Math.min(r, g, b)];
  const [lightness, range] = [(most + least) / 2, most - least];
  if (range === 0) return { hue: 0, saturation: 0, lightness };
  const sector =
    most === r ? (g - b) / range : most === g ? 2 + (b - r) / range : 4 + (r - g) / range;
  const saturation = range / (1 - Math.abs(2 * lightness - 1));
  return { hue: (60 * sector + 360) % 360, saturation, lightness };
}
