/** What happened in each step of a drawing, as the view shows it. */
import { useEffect, useState } from "preact/hooks";
import type { NdArray } from "../../../src/engine/arrays/ndarray.ts";
import type { GenerateStep, StepInspection } from "../../../src/pipelines/index.ts";
import { type Picture, picturesOf } from "../../../src/pictures/picture.ts";
import type { Drawing } from "../drawing.ts";
import { model } from "../engine.ts";

/** The attention of one layer: rows of `tokens` shares, which sum to 1, for each head. */
export interface Attention {
  readonly layer: number;
  readonly heads: number;
  readonly tokens: number;
  /** [heads, tokens, tokens] */
  readonly shares: Float32Array;
}

/** A step of one picture. */
export interface Look {
  readonly alpha: number;
  readonly sigma: number;
  readonly x: Picture;
  readonly x0: Picture;
  /** Grey where nothing moves. */
  readonly velocity: Picture;
  /** Root of the mean square of the velocity. */
  readonly speed: number;
  readonly conditional: Picture;
  readonly unconditional: Picture | undefined;
  /** Conditional − unconditional; grey where they agree. */
  readonly difference: Picture | undefined;
  /** Root of the mean square of the difference. */
  readonly apart: number;
  readonly attention: readonly Attention[];
  /** Shares of the choices of a prior by their names. */
  readonly choices: Readonly<Record<string, Float32Array>>;
}

const attentionTaps = "blocks.*.attn.probabilities";
const choiceTaps = "prompt_encoder.prior.*.shares";

/** How much of the range of a picture one unit of a velocity or difference takes. */
const VELOCITY_SCALE = 0.4;
const DIFFERENCE_SCALE = 1.5;

/** Looks by drawing and step, so that a step is computed once. */
const known = new Map<string, Promise<StepInspection>>();

function inspect(drawing: Drawing, step: GenerateStep): Promise<StepInspection> {
  const key = `${drawing.id} ${step.step}`;
  const { facts } = model.get();
  const taps = [attentionTaps, ...(facts?.hasPrior ? [choiceTaps] : [])];
  const found = known.get(key) ?? step.inspect({ taps });
  known.set(key, found);
  for (const other of known.keys()) if (!other.startsWith(`${drawing.id} `)) known.delete(other);
  return found;
}

export interface Looks {
  /** By step, as they arrive. */
  readonly all: readonly (Look | undefined)[];
  readonly problem: string | undefined;
}

/**
 * Looks into all steps of a drawing, those in view first.
 *
 * @param picture its number, from 0
 * @param current the step in view, from 0
 */
export function useLooks(drawing: Drawing | undefined, picture: number, current: number): Looks {
  const [looks, setLooks] = useState<Looks>({ all: [], problem: undefined });
  const id = drawing?.pictures && drawing.id;
  useEffect(() => {
    if (!drawing?.pictures) return undefined;
    let left = false;
    const { steps } = drawing;
    const all: (Look | undefined)[] = steps.map(() => undefined);
    setLooks({ all, problem: undefined });
    // From the step in view outwards.
    const order = [...steps.keys()].sort((a, b) => Math.abs(a - current) - Math.abs(b - current));
    const lookAtAll = async () => {
      for (const i of order) {
        const inspected = await inspect(drawing, steps[i]!);
        if (left) return;
        all[i] = lookOf(inspected, picture);
        setLooks({ all: [...all], problem: undefined });
      }
    };
    lookAtAll().catch((error: unknown) => {
      if (!left) setLooks({ all: [...all], problem: (error as Error).message });
    });
    return () => {
      left = true;
    };
  }, [id, picture]);
  return looks;
}

function lookOf(inspected: StepInspection, picture: number): Look {
  const { level, x, x0, velocity, conditional, unconditional } = inspected;
  const row = ({ shape, data }: NdArray): NdArray => {
    const size = data.length / shape[0]!;
    const own = (data as Float32Array).slice(picture * size, (picture + 1) * size);
    return { ...x, dtype: "float32", shape: [1, ...shape.slice(1)], data: own };
  };
  const pictureOf = (values: NdArray) => picturesOf(values)[0]!;
  const moved = row(velocity);
  const other = unconditional && row(unconditional.x0);
  const apart = other && minus(row(conditional.x0), other);
  return {
    alpha: level.alpha,
    sigma: level.sigma,
    x: pictureOf(row(x)),
    x0: pictureOf(row(x0)),
    velocity: pictureOf(scaled(moved, VELOCITY_SCALE)),
    speed: rootMeanSquare(moved),
    conditional: pictureOf(row(conditional.x0)),
    unconditional: other && pictureOf(other),
    difference: apart && pictureOf(scaled(apart, DIFFERENCE_SCALE)),
    apart: apart ? rootMeanSquare(apart) : 0,
    attention: Object.entries(conditional.taps)
      .filter(([name]) => name.endsWith(".probabilities"))
      .map(([name, tap]) => attentionOf(Number(/\d+/.exec(name)![0]), row(tap))),
    choices: Object.fromEntries(
      Object.entries(conditional.taps)
        .filter(([name]) => name.endsWith(".shares"))
        .map(([name, tap]) => [name.split(".").at(-2)!, row(tap).data as Float32Array]),
    ),
  };
}

function attentionOf(layer: number, { shape, data }: NdArray): Attention {
  const [, heads, tokens] = shape as readonly [number, number, number];
  return { layer, heads, tokens, shares: data as Float32Array };
}

function mapped(array: NdArray, f: (value: number, i: number) => number): NdArray {
  return { ...array, data: (array.data as Float32Array).map(f) };
}

function scaled(array: NdArray, factor: number): NdArray {
  return mapped(array, (value) => factor * value);
}

function minus(a: NdArray, b: NdArray): NdArray {
  return mapped(a, (value, i) => value - Number(b.data[i]));
}

function rootMeanSquare({ data }: NdArray): number {
  let squares = 0;
  for (const value of data as Float32Array) squares += value ** 2;
  return Math.sqrt(squares / data.length);
}
