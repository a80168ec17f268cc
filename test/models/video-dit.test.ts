import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { drawFrameTimes } from "../../src/diffusion/frame-times.ts";
import { recipeLoss, recipeSchema } from "../../src/diffusion/recipe.ts";
import { shiftAt } from "../../src/diffusion/levels.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../../src/engine/runtime/stored-weight.ts";
import { networkSchema, separateTimes, traceNetwork } from "../../src/models/network.ts";
import { declaredTensors } from "../../src/nn/params.ts";
import { readInitialWeights } from "../../src/training/tasks/initial-weights-node.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { randomArray } from "../support/arrays.ts";
import { runWith } from "../support/finite-differences.ts";
import { randomValues } from "../support/network-values.ts";

const backend = nodeBackend("cpu");

const config = networkSchema().parse({
  kind: "video-dit",
  size: [8, 4],
  frames: 4,
  channels: 2,
  patch: 2,
  framePatch: 2,
  hidden: 24,
  depth: 2,
  heads: 2,
  mlpRatio: 2,
  learnedVariance: false,
  condition: { kind: "text", width: 6, length: 3 },
  patches: { kind: "linear" },
  positions: { kind: "sin-cos" },
  rotary: { theta: 100 },
  norm: { kind: "rms", affine: false, epsilon: 1e-6 },
  feedForward: { kind: "swiglu" },
  qkNorm: { kind: "rms", affine: true, epsilon: 1e-6 },
});

describe("a video DiT", () => {
  const x = randomArray(1, "float32", [2, 2, 4, 8, 4]);
  const y = randomArray(2, "float32", [2, 3, 6]);
  const mask = ndarray("bool", [2, 3], [1, 1, 0, 1, 1, 1]);
  const traced = traceNetwork(config);
  const values = randomValues(traced.params);
  const run = async (t: NdArray, perFrame: boolean, clip: NdArray = x) => {
    const { output, params, inputs } = traceNetwork(config, {
      timePerToken: perFrame,
      frames: clip.shape[2],
    });
    expect([...params.declared.keys()].sort()).toEqual(Object.keys(values).sort());
    const program = await backend.compile(graphOf({ output }), { weights: arrayWeights(values) });
    const text = "y" in inputs ? { y, mask } : {};
    const result = await program.run({ x: clip, t, ...text });
    await program.dispose();
    return toNumbers(result["output"]!);
  };

  it("gives the same for one time and for that time at every frame, and depends on each frame's", async () => {
    const one = await run(ndarray("float32", [2], [300, 700]), false);
    const all = await run(ndarray("float32", [2, 2], [300, 300, 700, 700]), true);
    for (const [i, value] of all.entries()) expect(value).toBeCloseTo(one[i]!, 4);
    const mixed = await run(ndarray("float32", [2, 2], [300, 300, 0, 700]), true);
    const half = one.length / 2;
    expect(mixed.slice(0, half)).toEqual(all.slice(0, half));
    expect(mixed.slice(half)).not.toEqual(all.slice(half));
  });

  it("takes other lengths and sizes, down to one patch of time", async () => {
    const still = await run(
      ndarray("float32", [2], [1, 1]),
      false,
      randomArray(3, "float32", [2, 2, 2, 8, 4]),
    );
    expect(still.length).toBe(2 * 2 * 2 * 8 * 4);
    expect(separateTimes(config)).toBe(2);
    expect(separateTimes(config, [8, 4], 6)).toBe(3);
  });

  it("learns with sliding tile attention, with the gradients that are defined", async () => {
    const attention = { kind: "tile", size: 1, window: 3 } as const;
    const tiled = traceNetwork({ ...config, attention, size: [10, 8], frames: 8 });
    // The embedding of no text is not read where a text is given.
    const weights = declaredTensors(tiled.params).filter(
      (each) => !leafName(each).endsWith("null"),
    );
    const slopes = gradient(tiled.output.square().mean(), weights);
    const graph = graphOf({
      output: tiled.output,
      ...Object.fromEntries(slopes.map((slope, i) => [`slope ${i}`, slope])),
    });
    const { "y_embedder.null": _, ...others } = randomValues(tiled.params);
    const given = {
      ...others,
      x: randomArray(4, "float32", [1, 2, 8, 10, 8]),
      t: ndarray("float32", [1], [300]),
      y: randomArray(5, "float32", [1, 3, 6]),
      mask: ndarray("bool", [1, 3], [1, 1, 1]),
    };
    const want = runWith(graph, given);
    const program = await backend.compile(graph);
    const got = await program.run(given);
    await program.dispose();
    const errors = Object.entries(got).map(([name, array]) => {
      const exact = toNumbers(want[name]!);
      return (
        Math.hypot(...toNumbers(array).map((each, i) => each - exact[i]!)) / Math.hypot(...exact)
      );
    });
    expect(Math.max(...errors)).toBeLessThan(1e-4);
    const full = traceNetwork({ ...config, size: [10, 8], frames: 8 });
    const unlike = runWith(graphOf({ output: full.output }), given)["output"]!;
    expect(toNumbers(unlike)).not.toEqual(toNumbers(want["output"]!));
  });

  it.each([
    ["frames that its patch does not divide", { frames: 5 }, "a clip of 5 frames cannot be cut"],
    ["a width that sin-cos positions cannot share", { hidden: 16, rotary: null }, "multiple of 6"],
    ["heads too narrow for three axes", { hidden: 24, heads: 6 }, "even width of at least 6"],
  ])("refuses %s", (_, more, message) => {
    const { error } = networkSchema().safeParse({ ...config, ...more });
    expect(error?.issues[0]?.message).toContain(message);
  });
});

describe("noise levels of frames", () => {
  const draw = (_: unknown, count: number) =>
    ndarray(
      "float32",
      [count],
      Array.from({ length: count }, (_one, i) => (i + 1) / (count + 1)),
    );
  const rowsOf = (levels: object, lengths?: readonly number[]) => {
    const shares = { equal: 0, firstClean: 0, independent: 0, ...levels };
    const { time, counts } = drawFrameTimes(randomKey(1), [50, 4], draw, {
      levels: shares,
      lengths,
    });
    return Array.from({ length: 50 }, (_, row) => ({
      time: toNumbers(time).slice(4 * row, 4 * row + 4),
      counts: toNumbers(counts).slice(4 * row, 4 * row + 4),
    }));
  };

  it("are one for all, or none for the first and one for the others, or each its own", () => {
    for (const { time, counts } of rowsOf({ equal: 1 })) {
      expect(new Set(time).size).toBe(1);
      expect(counts).toEqual([1, 1, 1, 1]);
    }
    const cleans = rowsOf({ firstClean: 1 }).map(({ time, counts }) => {
      const clean = counts.indexOf(1);
      expect(time.slice(0, clean).every((each) => each === 0)).toBe(true);
      expect(new Set(time.slice(clean)).size).toBe(1);
      return clean;
    });
    expect(new Set(cleans)).toEqual(new Set([1, 2, 3]));
    for (const { time } of rowsOf({ independent: 1 })) expect(new Set(time).size).toBe(4);
  });

  it("are pure noise that does not count behind the end of a clip", () => {
    const lengths = Array.from({ length: 50 }, (_, i) => 1 + (i % 4));
    for (const [row, { time, counts }] of rowsOf(
      { firstClean: 0.5, independent: 0.5 },
      lengths,
    ).entries()) {
      const length = lengths[row]!;
      expect(time.slice(length).every((each) => each === 1)).toBe(true);
      expect(counts.slice(length).every((each) => each === 0)).toBe(true);
      expect(counts.some((each) => each === 1)).toBe(true);
    }
  });

  it("weigh the loss of the frames that count alone", async () => {
    const recipe = recipeSchema.parse({
      process: "flow",
      predicts: "x0",
      weighting: { kind: "space", space: "x0" },
    });
    const x0 = input("x0", [batch, 1, 4, 1, 2]);
    // A network that predicts zeros, whose error is x0².
    const loss = recipeLoss(recipe, x0, (x) => x.mul(0), false, undefined, 2);
    const program = await backend.compile(graphOf({ loss }), {});
    const clean = ndarray("float32", [1, 1, 4, 1, 2], [1, 1, 2, 2, 3, 3, 5, 5]);
    const given = (time: readonly number[], counts: readonly number[]) => ({
      x0: clean,
      noise: randomArray(1, "float32", [1, 1, 4, 1, 2]),
      time: ndarray("float32", [1, 2], time),
      counts: ndarray("float32", [1, 2], counts),
    });
    const both = await program.run(given([0.5, 0.9], [1, 1]));
    expect(toNumbers(both["loss"]!)[0]).toBeCloseTo((1 + 4 + 9 + 25) / 4, 5);
    const last = await program.run(given([0, 0.9], [0, 1]));
    expect(toNumbers(last["loss"]!)[0]).toBeCloseTo((9 + 25) / 2, 5);
    await program.dispose();
  });

  it("are shifted by the length of a clip, as by its size", () => {
    const shift = { value: 2, area: 64 };
    expect(shiftAt(shift, [8, 8], 4)).toBeCloseTo(4, 9);
    expect(shiftAt(shift, [8, 8])).toBe(2);
    const shares = { equal: 0.5, firstClean: 0.2, independent: 0.2 };
    expect(
      recipeSchema.safeParse({ process: "flow", frameLevels: shares }).error?.issues[0]?.message,
    ).toContain("must add up to 1");
  });
});

it("a video DiT that begins with the weights of a DiT draws each frame as the picture", async () => {
  const {
    frames: _,
    framePatch: _patch,
    ...still
  }: Record<string, unknown> = {
    ...config,
    rotary: null,
  };
  const plain = { positions: { kind: "none" }, condition: { kind: "none" } };
  const dit = networkSchema().parse({
    ...still,
    ...plain,
    kind: "dit",
    block: { kind: "adaLN-zero" },
  });
  const clips = networkSchema().parse({ ...config, ...plain, rotary: null, frames: 2 });
  const folder = mkdtempSync(path.join(tmpdir(), "patchwise-inflated-"));
  const values = randomValues(traceNetwork(dit).params);
  const file = path.join(folder, "model.safetensors");
  await writeSafetensors(file, Object.entries(values));
  const { params } = traceNetwork(clips);
  const read = await readInitialWeights(params, folder);
  const picture = randomArray(1, "float32", [1, 2, 8, 4]);
  const t = ndarray("float32", [1], [400]);
  const drawn = async (
    network: typeof dit,
    weights: Readonly<Record<string, NdArray>>,
    x: NdArray,
  ) => {
    const graph = graphOf({ output: traceNetwork(network).output });
    const program = await backend.compile(graph, { weights: arrayWeights(weights) });
    const { output } = await program.run({ x, t });
    await program.dispose();
    return toNumbers(output!);
  };
  const expected = await drawn(dit, values, picture);
  // Two frames of each channel, both the picture.
  const twice = [0, 1].flatMap((c) => {
    const plane = [...picture.data.subarray(32 * c, 32 * c + 32)].map(Number);
    return [...plane, ...plane];
  });
  const found = await drawn(
    clips,
    await read([...params.declared.keys()]),
    ndarray("float32", [1, 2, 2, 8, 4], twice),
  );
  for (const [i, value] of found.entries()) {
    const channel = Math.floor(i / 64);
    expect(value).toBeCloseTo(expected[32 * channel + (i % 32)]!, 4);
  }
  const other = traceNetwork({ ...clips, hidden: 48 }).params;
  await expect(readInitialWeights(other, folder)).rejects.toThrow("is of another model");
  rmSync(folder, { recursive: true });
});
