/**
 * Colour spaces that a picture file names in numbers instead of by an ICC profile, and their conversion to sRGB
 * (IEC 61966-2-1).
 */

type Matrix = readonly (readonly number[])[];
type Point = readonly [x: number, y: number];

/** Chromaticities (CIE 1931 xy) of white and of the three primaries. */
export interface Primaries {
  readonly white: Point;
  readonly red: Point;
  readonly green: Point;
  readonly blue: Point;
}

export interface ColourSpace {
  /** Light, from 0 to 1, of a value from 0 to 1. */
  readonly linear: (value: number) => number;
  /** Undefined for those of sRGB. */
  readonly primaries?: Primaries | undefined;
}

const D65: Point = [0.3127, 0.329];
const srgbPrimaries: Primaries = {
  white: D65,
  red: [0.64, 0.33],
  green: [0.3, 0.6],
  blue: [0.15, 0.06],
};

export const srgbLinear = (value: number): number =>
  value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const srgbEncoded = (light: number): number =>
  light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055;

/** Primaries by their number in ITU-T H.273, table 2. */
const cicpPrimaries: Readonly<Record<number, Primaries>> = {
  1: srgbPrimaries,
  4: { white: [0.31, 0.316], red: [0.67, 0.33], green: [0.21, 0.71], blue: [0.14, 0.08] },
  5: { white: D65, red: [0.64, 0.33], green: [0.29, 0.6], blue: [0.15, 0.06] },
  6: { white: D65, red: [0.63, 0.34], green: [0.31, 0.595], blue: [0.155, 0.07] },
  7: { white: D65, red: [0.63, 0.34], green: [0.31, 0.595], blue: [0.155, 0.07] },
  9: { white: D65, red: [0.708, 0.292], green: [0.17, 0.797], blue: [0.131, 0.046] },
  11: { white: [0.314, 0.351], red: [0.68, 0.32], green: [0.265, 0.69], blue: [0.15, 0.06] },
  12: { white: D65, red: [0.68, 0.32], green: [0.265, 0.69], blue: [0.15, 0.06] },
};

/**
 * Transfer functions by their number in ITU-T H.273, table 3. Those of video (BT.709, BT.601, BT.2020) describe cameras; a
 * picture made with them is shown by the curve of sRGB, as image viewers do.
 */
const cicpCurves: Readonly<Record<number, (value: number) => number>> = {
  1: srgbLinear,
  4: (value) => value ** 2.2,
  5: (value) => value ** 2.8,
  6: srgbLinear,
  8: (value) => value,
  13: srgbLinear,
  14: srgbLinear,
  15: srgbLinear,
};

const highRange: Readonly<Record<number, string>> = { 16: "PQ", 18: "HLG" };

/** Unspecified, in both tables. */
const UNSPECIFIED = 2;

/**
 * The space of code points of ITU-T H.273, as PNG's cICP chunk and AVIF's nclx box hold them; undefined for that of sRGB.
 *
 * @throws Error for pictures of high dynamic range, and for spaces that are not known
 */
export function cicpSpace(primaries: number, transfer: number): ColourSpace | undefined {
  const range = highRange[transfer];
  if (range) {
    throw new Error(`it is of high dynamic range (${range}) and has to be converted to sRGB first`);
  }
  const points = cicpPrimaries[primaries === UNSPECIFIED ? 1 : primaries];
  const linear = cicpCurves[transfer === UNSPECIFIED ? 1 : transfer];
  if (!points || !linear) {
    throw new Error(
      `its colours have the primaries ${primaries} and the transfer function ${transfer} of ITU-T H.273 and have to be converted to sRGB first`,
    );
  }
  return spaceUnlessSrgb({ linear, primaries: points });
}

/** Undefined for sRGB, whose pixels need no conversion. */
export function spaceUnlessSrgb({ linear, primaries }: ColourSpace): ColourSpace | undefined {
  const own = primaries && !isSrgb(primaries) ? primaries : undefined;
  return linear === srgbLinear && !own ? undefined : { linear, primaries: own };
}

/** Chromaticities are written with rounding. */
function isSrgb(primaries: Primaries): boolean {
  return (["white", "red", "green", "blue"] as const).every((name) =>
    primaries[name].every((value, i) => Math.abs(value - srgbPrimaries[name][i]!) < 0.001),
  );
}

/**
 * Converts pixels to sRGB.
 *
 * @param values grey or RGB, of 8 or 16 bits each, with alpha behind them if `channels` is even
 */
export function toSrgb(
  values: Uint8Array | Uint16Array,
  channels: 1 | 2 | 3 | 4,
  { linear, primaries }: ColourSpace,
): Uint8Array {
  const most = 2 ** (8 * values.BYTES_PER_ELEMENT) - 1;
  const lights = Float64Array.from({ length: most + 1 }, (_, value) => linear(value / most));
  const matrix = primaries && channels > 2 ? toLinearSrgb(primaries) : undefined;
  const colours = channels - ((channels + 1) % 2);
  const pixels = new Uint8Array(values.length);
  for (let at = 0; at < values.length; at += channels) {
    for (let i = 0; i < channels; i++) {
      if (i >= colours) pixels[at + i] = Math.round((255 * values[at + i]!) / most);
      else if (!matrix) pixels[at + i] = inByte(lights[values[at + i]!]!);
      else {
        let light = 0;
        for (let j = 0; j < 3; j++) light += matrix[i]![j]! * lights[values[at + j]!]!;
        pixels[at + i] = inByte(light);
      }
    }
  }
  return pixels;
}

const STEPS = 2 ** 16 - 1;
let encoded: Uint8Array | undefined;

function inByte(light: number): number {
  encoded ??= Uint8Array.from({ length: STEPS + 1 }, (_, step) =>
    Math.round(255 * srgbEncoded(step / STEPS)),
  );
  return encoded[Math.round(STEPS * Math.min(Math.max(light, 0), 1))]!;
}

/** From linear values of some primaries to those of sRGB, with the white of one adapted to that of the other. */
function toLinearSrgb(primaries: Primaries): Matrix {
  const adaptation = adapted(primaries.white, srgbPrimaries.white);
  return product(inverse(toXyz(srgbPrimaries)), product(adaptation, toXyz(primaries)));
}

function xyzOf([x, y]: Point): number[] {
  return [x / y, 1, (1 - x - y) / y];
}

/** From linear values to CIE XYZ: white is the sum of the primaries. */
function toXyz({ white, red, green, blue }: Primaries): Matrix {
  const columns = transposed([red, green, blue].map(xyzOf));
  const scales = applied(inverse(columns), xyzOf(white));
  return columns.map((row) => row.map((value, i) => value * scales[i]!));
}

/** Bradford's response of the cones (ICC.1:2022, annex E). */
const bradford: Matrix = [
  [0.8951, 0.2664, -0.1614],
  [-0.7502, 1.7135, 0.0367],
  [0.0389, -0.0685, 1.0296],
];

function adapted(from: Point, to: Point): Matrix {
  const [seen, wanted] = [from, to].map((white) => applied(bradford, xyzOf(white)));
  const scaled = bradford.map((row, i) => row.map((value) => (value * wanted![i]!) / seen![i]!));
  return product(inverse(bradford), scaled);
}

function applied(matrix: Matrix, vector: readonly number[]): number[] {
  return matrix.map((row) => row.reduce((sum, value, i) => sum + value * vector[i]!, 0));
}

function transposed(matrix: Matrix): Matrix {
  return [0, 1, 2].map((i) => matrix.map((row) => row[i]!));
}

function product(a: Matrix, b: Matrix): Matrix {
  return transposed(transposed(b).map((column) => applied(a, column)));
}

/** By Cramer's rule. */
function inverse(matrix: Matrix): Matrix {
  const cofactor = (i: number, j: number) => {
    const [r, s, c, d] = [(i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3];
    return matrix[r]![c]! * matrix[s]![d]! - matrix[r]![d]! * matrix[s]![c]!;
  };
  const determinant = [0, 1, 2].reduce((sum, j) => sum + matrix[0]![j]! * cofactor(0, j), 0);
  return [0, 1, 2].map((i) => [0, 1, 2].map((j) => cofactor(j, i) / determinant));
}
