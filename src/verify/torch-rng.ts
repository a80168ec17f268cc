/**
 * PyTorch's CPU random numbers, recorded by name:
 *
 *     FUNCTION.seedN.SHAPE            drawn from a generator of its own, seeded with N
 *     sequence.seedN.K_FUNCTIONSHAPE  the K-th tensor of those drawn from one generator, seeded with N
 *
 * FUNCTION is rand, randn, randperm, exponential, randintHIGH or randintLOW_HIGH; SHAPE is the sizes joined by
 * "x". The dtype of the recorded tensor is the one that was asked for.
 */
import { FormatError, quote } from "../engine/errors.ts";
import { castArray, type NdArray } from "../engine/arrays/ndarray.ts";
import {
  exponential,
  rand,
  randint,
  randn,
  randperm,
  type TorchGenerator,
  torchGenerator,
} from "../engine/random/torch-random.ts";
import type { Computed } from "./family.ts";
import type { Recording } from "./recording.ts";

interface Draw {
  /** The recorded tensor's name. */
  readonly name: string;
  /** Identifies the generator, from which draws are made in `order`. */
  readonly source: string;
  readonly seed: bigint;
  readonly order: number;
  /** The function and its bounds, if any: "randn", "randint1000". */
  readonly call: string;
  readonly shape: readonly number[];
}

/** Draws every recorded tensor again. */
export async function* torchRng({ io }: Recording): AsyncGenerator<Computed> {
  const sources = new Map<string, Draw[]>();
  for (const { name, shape } of io.entries.values()) {
    const draw = parseName(name, shape);
    sources.set(draw.source, [...(sources.get(draw.source) ?? []), draw]);
  }
  for (const draws of sources.values()) {
    draws.sort((a, b) => a.order - b.order);
    checkComplete(draws);
    const generator = torchGenerator(draws[0]!.seed);
    for (const draw of draws) {
      const want = await io.read(draw.name);
      yield { name: draw.name, got: drawn(draw, generator, want), want };
    }
  }
}

/** @throws FormatError if the name has neither of the two forms */
function parseName(name: string, recorded: readonly number[]): Draw {
  const alone = /^([^.]+)\.seed(-?\d+)\.(\d+(?:x\d+)*)?$/.exec(name);
  if (alone) {
    const [, call, seed, sizes] = alone;
    const shape = sizes?.split("x").map(Number) ?? [];
    return { name, source: name, seed: BigInt(seed!), order: 1, call: call!, shape };
  }
  const [, source, seed, order, rest] = /^(sequence\.seed(-?\d+))\.(\d+)_(.+)$/.exec(name) ?? [];
  // "randint100020" may be 20 integers below 1000 or 2 below 10002: only the recorded shape can tell.
  const suffix = recorded.join("x");
  if (source && rest!.endsWith(suffix)) {
    const call = rest!.slice(0, rest!.length - suffix.length).replace(/[._x-]$/, "");
    return { name, source, seed: BigInt(seed!), order: Number(order), call, shape: recorded };
  }
  throw new FormatError(
    `The tensor name ${quote(name)} of shape [${recorded.join(", ")}] is not valid; use FUNCTION.seedN.SHAPE or sequence.seedN.K_FUNCTIONSHAPE.`,
  );
}

/** A missing tensor of a sequence would have advanced the generator by an unknown amount. */
function checkComplete(draws: readonly Draw[]): void {
  draws.forEach(({ order, source }, i) => {
    const expected = draws[0]!.order + i;
    if (order === expected) return;
    throw new FormatError(
      `${source} has tensor ${order} in place of tensor ${expected}; record every drawn tensor exactly once.`,
    );
  });
}

function drawn(draw: Draw, generator: TorchGenerator, want: NdArray): NdArray {
  const { call, shape } = draw;
  const real = want.dtype === "float64" ? "float64" : "float32";
  if (call === "rand") return rand(generator, shape, real);
  if (call === "randn") return randn(generator, shape, real);
  if (call === "exponential") return exponential(generator, shape, 1, real);
  if (call === "randperm" && shape.length === 1) {
    return castArray(randperm(generator, shape[0]!), want.dtype);
  }
  const bounds = /^randint(?:(-?\d+)_)?(-?\d+)$/.exec(call);
  if (bounds) {
    const [, low = "0", high] = bounds;
    return castArray(randint(generator, BigInt(low), BigInt(high!), shape), want.dtype);
  }
  throw new FormatError(
    `The tensor ${quote(draw.name)} names the function ${quote(call)} and the shape [${shape.join(", ")}]; known are rand, randn, exponential, randintHIGH, randintLOW_HIGH, and randperm of one dimension.`,
  );
}
