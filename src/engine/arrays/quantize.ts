/**
 * Numbers → blocks of quantized numbers, by the rules of ggml's reference (ggml-quants.c): quantize_row_q8_0_ref, quantize_row_q4_0_ref
 * and quantize_row_q4_K_ref. All arithmetic is in float32, so that the bytes are the same.
 */
import { blockFormats } from "./blocks.ts";
import { float32ToFloat16, fromFloat16 } from "./convert.ts";

const f = Math.fround;

/** Half away from zero, as C's roundf. */
const rounded = (x: number) => Math.sign(x) * Math.floor(Math.abs(x) + 0.5);

/** Half to even, as ggml's nearest_int. */
function nearest(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  if (rest !== 0.5) return rest < 0.5 ? low : low + 1;
  return low % 2 === 0 ? low : low + 1;
}

const clamped = (x: number, most: number) => Math.max(0, Math.min(most, x));

const one = new Float32Array(1);
const bits = new Uint16Array(1);

/** Writes a number as float16, and returns its bits. */
function writeHalf(block: Uint8Array, at: number, value: number): number {
  one[0] = value;
  float32ToFloat16(one, bits);
  [block[at], block[at + 1]] = [bits[0]! & 255, bits[0]! >> 8];
  return bits[0]!;
}

type Quantizer = (x: Float32Array, block: Uint8Array) => void;

const q8: Quantizer = (x, block) => {
  let most = 0;
  for (const value of x) most = Math.max(most, Math.abs(value));
  const scale = f(most / 127);
  const inverse = scale === 0 ? 0 : f(1 / scale);
  writeHalf(block, 0, scale);
  for (const [i, value] of x.entries()) block[2 + i] = rounded(f(value * inverse)) & 255;
};

const q4: Quantizer = (x, block) => {
  let [most, largest] = [0, 0];
  for (const value of x) {
    if (Math.abs(value) <= most) continue;
    [most, largest] = [Math.abs(value), value];
  }
  const scale = f(largest / -8);
  const inverse = scale === 0 ? 0 : f(1 / scale);
  writeHalf(block, 0, scale);
  const at = (i: number) => Math.min(15, Math.trunc(f(f(x[i]! * inverse) + 8.5)));
  for (let i = 0; i < 16; i++) block[2 + i] = at(i) | (at(16 + i) << 4);
};

/** Scale, smallest number and whole numbers of 32 numbers (make_qkx2_quants), tried with 21 scales. */
function fitted(x: Float32Array, weights: Float32Array): readonly [scale: number, least: number] {
  let [min, max] = [x[0]!, x[0]!];
  let sumWeight = weights[0]!;
  let sumX = f(sumWeight * x[0]!);
  for (let i = 1; i < 32; i++) {
    min = Math.min(min, x[i]!);
    max = Math.max(max, x[i]!);
    sumWeight = f(sumWeight + weights[i]!);
    sumX = f(sumX + f(weights[i]! * x[i]!));
  }
  min = Math.min(min, 0);
  if (max === min) return [0, -min];
  const whole = new Uint8Array(32);
  const round = (inverse: number) => {
    for (let i = 0; i < 32; i++) whole[i] = clamped(nearest(f(inverse * f(x[i]! - min))), 15);
  };
  const errorOf = (scale: number, least: number) => {
    let error = 0;
    for (let i = 0; i < 32; i++) {
      const difference = f(f(f(scale * whole[i]!) + least) - x[i]!);
      error = f(error + f(weights[i]! * f(difference * difference)));
    }
    return error;
  };
  const first = f(15 / f(max - min));
  round(first);
  let best = { scale: f(1 / first), min };
  let bestError = errorOf(best.scale, min);
  for (let step = 0; step <= 20; step++) {
    round(f(f(f(-1 + f(f(0.1) * step)) + 15) / f(max - min)));
    let [sum, squares, products] = [0, 0, 0];
    for (let i = 0; i < 32; i++) {
      const own = f(weights[i]! * whole[i]!);
      sum = f(sum + own);
      squares = f(squares + f(own * whole[i]!));
      products = f(products + f(own * x[i]!));
    }
    const determinant = f(f(sumWeight * squares) - f(sum * sum));
    if (determinant <= 0) continue;
    let scale = f(f(f(sumWeight * products) - f(sumX * sum)) / determinant);
    let least = f(f(f(squares * sumX) - f(sum * products)) / determinant);
    if (least > 0) [scale, least] = [f(products / squares), 0];
    const error = errorOf(scale, least);
    if (error >= bestError) continue;
    bestError = error;
    best = { scale, min: least };
    // The next steps start from the best smallest number so far.
    min = least;
  }
  return [best.scale, -best.min];
}

const q4K: Quantizer = (x, block) => {
  const groups = Array.from({ length: 8 }, (_, group) => x.subarray(32 * group, 32 * group + 32));
  const fits = groups.map((own) => {
    let squares = 0;
    for (const value of own) squares = f(squares + f(value * value));
    const mean = f(Math.sqrt(f(squares / 32)));
    return fitted(
      own,
      own.map((value) => f(mean + Math.abs(value))),
    );
  });
  const [mostScale, mostLeast] = [0, 1].map((i) => Math.max(0, ...fits.map((fit) => fit[i]!)));
  const six = (value: number, most: number) =>
    Math.min(63, nearest(f((most > 0 ? f(63 / most) : 0) * value)));
  block.fill(0, 4, 16);
  const stored = fits.map(([scale, least], group) => {
    const [own, offset] = [six(scale, mostScale!), six(least, mostLeast!)];
    if (group < 4) [block[4 + group], block[8 + group]] = [own, offset];
    else {
      block[8 + group] = (own & 15) | ((offset & 15) << 4);
      block[group]! |= (own >> 4) << 6;
      block[4 + group]! |= (offset >> 4) << 6;
    }
    return [own, offset] as const;
  });
  const scale = fromFloat16(writeHalf(block, 0, f(mostScale! / 63)));
  const least = fromFloat16(writeHalf(block, 2, f(mostLeast! / 63)));
  const whole = groups.map((own, group) => {
    const [d, m] = [f(scale * stored[group]![0]), f(least * stored[group]![1])];
    return own.map((value) => (d === 0 ? 0 : clamped(nearest(f(f(value + m) / d)), 15)));
  });
  for (let i = 0; i < 128; i++) {
    const pair = 2 * (i >> 5);
    block[16 + i] = whole[pair]![i & 31]! | (whole[pair + 1]![i & 31]! << 4);
  }
};

const quantizers = { Q8_0: q8, Q4_0: q4, Q4_K: q4K } as const satisfies {
  readonly [F in keyof typeof blockFormats]?: Quantizer;
};

/** The types to which numbers can be quantized. */
export type QuantizedFormat = keyof typeof quantizers;

/** @param values whole blocks of finite numbers */
export function quantizeBlocks(format: QuantizedFormat, values: Float32Array): Uint8Array {
  const { numbers, bytes } = blockFormats[format];
  const blocks = new Uint8Array((values.length / numbers) * bytes);
  for (let i = 0; i < values.length / numbers; i++) {
    const own = values.subarray(i * numbers, (i + 1) * numbers);
    quantizers[format](own, blocks.subarray(i * bytes, (i + 1) * bytes));
  }
  return blocks;
}
