import path from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { countMultiplyAdds, countParameters } from "../../src/engine/passes/cost.ts";
import { UsageError } from "../../src/engine/errors.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { verifyGraph } from "../../src/engine/passes/verify.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import {
  networkSchema,
  type TracedNetwork,
  traceNetwork,
  type TraceOptions,
} from "../../src/models/network.ts";
import { type MMDiTConfig, mmditPresets } from "../../src/models/mmdit/config.ts";
import { initialize } from "../../src/nn/params.ts";
import { randomArray } from "../support/arrays.ts";
import { numbersOf, randomValues } from "../support/network-values.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const backend = nodeBackend("cpu");

const rms = { kind: "rms", affine: true, epsilon: 1e-6 } as const;
const tiny: MMDiTConfig = {
  ...mmditPresets["SD3-medium"],
  size: [4, 6],
  channels: 2,
  hidden: 16,
  depth: 3,
  heads: 2,
  condition: { kind: "text", width: 6, length: 5, pooled: 7 },
  positions: { kind: "sin-cos", max: 4 },
};
/** All that Stable Diffusion 3.5 added. */
const later: MMDiTConfig = { ...tiny, qkNorm: rms, dualAttention: [0, 2] };
/** A network that reads the tokens of a text and makes the rest of them. */
const own: MMDiTConfig = { ...tiny, condition: { kind: "text", width: 6, length: 5 } };
const classes: MMDiTConfig = {
  ...tiny,
  condition: { kind: "class", classes: 3, nullClass: true },
};

const trace = (config: MMDiTConfig, options?: TraceOptions) =>
  traceNetwork({ kind: "mmdit", ...config }, options);

const weightsIn = ({ params }: TracedNetwork) =>
  [...params.declared.values()].map(({ tensor }) => tensor);

const image = (count: number, seed = 5) => randomArray(seed, "float32", [count, 2, 4, 6]);
const times = (...t: number[]) => ndarray("float32", [t.length], t);
const flags = (...values: number[]) => ndarray("bool", [values.length], values);
const context = randomArray(8, "float32", [2, 5, 6]);
const inputs = {
  x: image(2),
  t: times(999.5, 3),
  context,
  pooled: randomArray(9, "float32", [2, 7]),
};
const mask = ndarray("bool", [2, 5], [1, 1, 1, 0, 0, 1, 1, 0, 0, 0]);

function largest(array: NdArray): number {
  return Math.max(...toNumbers(array).map(Math.abs));
}

function expectClose(found: readonly number[], expected: readonly number[]): void {
  expect(found).toHaveLength(expected.length);
  for (const [i, x] of expected.entries()) expect(found[i]).toBeCloseTo(x, 12);
}

describe("recordings of the original code", () => {
  it.each([
    ["sd3_mmdit", 2],
    ["sd3_mmditx", 99],
  ])("are reproduced with every gradient: %s", async (name, count) => {
    const report = await withRecording(path.join(fixtures, name), (recording) =>
      verifyRecording(recording, async () => backend),
    );
    expect(report.outputs.filter((output) => !output.ok)).toEqual([]);
    expect(report.outputs).toHaveLength(count);
    const errors = report.outputs.filter((output) => output.name.startsWith("out."));
    // Rounding alone moves the original's own output by 2e-6, an epsilon of 1e-5 by 1.2e-5.
    expect(Math.max(...errors.map((output) => output.max_error!))).toBeLessThan(6e-6);
  });
});

// Counts of the original code, without the table of positions.
describe.each([
  ["SD3-medium", 2_028_328_000, 4219],
  ["SD3.5-medium", 2_243_171_520, 5392.2],
  ["SD3.5-large", 8_056_627_520, 14_800],
] as const)("%s", (name, parameters, gflops) => {
  const config: MMDiTConfig = mmditPresets[name];
  const graph = graphOf({ output: trace(config).output });

  it("has the original's parameters", () => {
    expect(countParameters(graph)).toBe(parameters);
  });

  it("costs little more than its matrix products", () => {
    const { hidden: c, depth, dualAttention } = config;
    const [n, l] = [64 * 64, 154];
    const joint = depth * (12 * c * c * (n + l) + 2 * (n + l) ** 2 * c);
    // The last block leaves the text as it was, but for what it attends with.
    const unused = 9 * c * c * l;
    const again = dualAttention.length * (4 * c * c * n + 2 * n * n * c);
    const found = countMultiplyAdds(graph, 1);
    expect(found / (joint - unused + again)).toBeCloseTo(1, 2);
    expect(found / 1e9 / gflops).toBeCloseTo(1, 4);
  });
});

describe("a new model", () => {
  const trained: MMDiTConfig = { ...later, modulationRank: 3 };

  it("passes its tokens through unchanged", () => {
    const found = (depth: number) => {
      const traced = trace({ ...trained, depth, dualAttention: [] });
      const first = initialize(traced.params, randomKey(1));
      const shape = first["final_layer.linear.weight"]!.shape;
      // What else is zero at first would hide what the blocks give.
      const opened = { "final_layer.linear.weight": randomArray(2, "float32", shape) };
      return numbersOf(traced.output, { ...first, ...opened, ...inputs });
    };
    expect(found(3)).toEqual(found(1));
    expect(found(1).some((x) => x !== 0)).toBe(true);
  });

  it("predicts zero", () => {
    const traced = trace(trained);
    const first = initialize(traced.params, randomKey(1));
    expect(new Set(numbersOf(traced.output, { ...first, ...inputs }))).toEqual(new Set([0]));
  });

  it("cannot be initialized with a stored position table", () => {
    const traced = trace({ ...tiny, positions: { kind: "stored", max: 4 } });
    expect(() => initialize(traced.params, randomKey(1))).toThrow(UsageError);
    expect(() => initialize(traced.params, randomKey(1))).toThrow(
      "The table pos_embed is only contained in checkpoints",
    );
  });
});

describe("rows of a batch", () => {
  it("are independent", () => {
    const traced = trace(later);
    const weights = randomValues(traced.params);
    const together = numbersOf(traced.output, { ...weights, ...inputs });
    const half = together.length / 2;
    expect(together.slice(0, half)).not.toEqual(together.slice(half));
    for (const row of [0, 1]) {
      const alone = Object.fromEntries(
        Object.entries(inputs).map(([name, { dtype, shape, data }]) => {
          const size = data.length / 2;
          const values = toNumbers({ dtype, shape, data }).slice(row * size, (row + 1) * size);
          return [name, ndarray(dtype, [1, ...shape.slice(1)], values)];
        }),
      );
      const found = numbersOf(traced.output, { ...weights, ...alone });
      expectClose(found, together.slice(row * half, (row + 1) * half));
    }
  });

  it("skip blocks individually", () => {
    const skipping = trace(later, { skippable: [1] });
    const weights = randomValues(skipping.params);
    const found = numbersOf(skipping.output, { ...weights, ...inputs, skip: flags(1, 0) });
    const half = found.length / 2;
    const whole = numbersOf(trace(later).output, { ...weights, ...inputs });
    expectClose(found.slice(half), whole.slice(half));
    // The same without block 1, block 2 in its place.
    const less = Object.fromEntries(
      Object.entries(weights)
        .filter(([name]) => !name.startsWith("joint_blocks.1."))
        .map(([name, value]) => [name.replace("joint_blocks.2.", "joint_blocks.1."), value]),
    );
    const shorter = numbersOf(trace({ ...later, depth: 2, dualAttention: [0, 1] }).output, {
      ...less,
      ...inputs,
    });
    expectClose(found.slice(0, half), shorter.slice(0, half));
    expect(shorter.slice(0, half)).not.toEqual(whole.slice(0, half));
  });

  it("can skip the last block, but not one that does not exist", () => {
    const skipping = trace(tiny, { skippable: [0, 1, 2] });
    const weights = randomValues(skipping.params);
    const found = numbersOf(skipping.output, { ...weights, ...inputs, skip: flags(1, 1) });
    const other = randomArray(3, "float32", [2, 5, 6]);
    // The text is heard nowhere then.
    expect(
      numbersOf(skipping.output, { ...weights, ...inputs, context: other, skip: flags(1, 1) }),
    ).toEqual(found);
    expect(() => trace(tiny, { skippable: [3] })).toThrow(
      "An MMDiT of 3 blocks has no block 3 to be skippable; give numbers from 0 to 2.",
    );
  });
});

describe("a text", () => {
  const traced = trace(own);
  const weights = randomValues(traced.params);
  const run = (y: NdArray, shown = mask) =>
    numbersOf(traced.output, { ...weights, ...inputs, y, mask: shown });

  it("affects the output, but its padding does not", () => {
    const expected = run(context);
    const data = Float32Array.from(context.data as Float32Array, (x, i) =>
      Number(mask.data[Math.floor(i / 6)]) === 1 ? x : 7,
    );
    expectClose(run({ ...context, data }), expected);
    const other = run({ ...context, data: (context.data as Float32Array).map((x) => x + 0.1) });
    expect(Math.max(...other.map((x, i) => Math.abs(x - expected[i]!)))).toBeGreaterThan(1e-3);
  });

  it("has no effect by words or length when dropped", () => {
    const dropping = trace(own, { drop: true });
    const all = randomValues(dropping.params);
    const dropped = (y: NdArray, shown: NdArray, ...drop: number[]) =>
      numbersOf(dropping.output, { ...all, ...inputs, y, mask: shown, drop: flags(...drop) });
    const none = dropped(context, mask, 1, 1);
    const longer = ndarray("bool", [2, 5], new Array<number>(10).fill(1));
    expectClose(dropped(randomArray(10, "float32", [2, 5, 6]), longer, 1, 1), none);
    expect(dropped(context, mask, 0, 0)).not.toEqual(none);
  });

  it("from encoders is used with its padding, and replaced by zeros when dropped", () => {
    const dropping = trace(tiny, { drop: true });
    expect(Object.keys(dropping.inputs).sort()).toEqual(["context", "drop", "pooled", "t", "x"]);
    const all = randomValues(dropping.params);
    const zeros = { ...context, data: new Float32Array(60) };
    const empty = {
      ...inputs,
      context: zeros,
      pooled: ndarray("float32", [2, 7], new Array(14).fill(0)),
    };
    expectClose(
      numbersOf(dropping.output, { ...all, ...inputs, drop: flags(1, 1) }),
      numbersOf(trace(tiny).output, { ...all, ...empty }),
    );
  });
});

describe("a class", () => {
  it("is replaced by the null class when dropped", () => {
    const dropping = trace(classes, { drop: true });
    const all = randomValues(dropping.params);
    const y = (...labels: number[]) => ndarray("int64", [2], labels);
    expect(
      numbersOf(dropping.output, { ...all, ...inputs, y: y(1, 2), drop: flags(1, 0) }),
    ).toEqual(numbersOf(trace(classes).output, { ...all, ...inputs, y: y(3, 2) }));
  });

  it("cannot be dropped without a null class", () => {
    const condition = { kind: "class", classes: 3, nullClass: false } as const;
    expect(() => trace({ ...tiny, condition }, { drop: true })).toThrow("has no null class");
  });
});

describe("positions", () => {
  const max = 6;
  const stored: MMDiTConfig = {
    ...tiny,
    depth: 1,
    size: [max * 2, max * 2],
    positions: { kind: "stored", max },
  };
  const asked = trace(stored);
  const weights = {
    ...randomValues(asked.params),
    // Blocks that give nothing: each patch then depends on its place alone.
    ...Object.fromEntries(
      Object.entries(randomValues(asked.params))
        .filter(([name]) => /^joint_blocks.*adaLN/.test(name))
        .map(([name, value]) => [name, { ...value, data: new Float32Array(value.data.length) }]),
    ),
  };
  const blank = (rows: number, columns: number) => ({
    ...inputs,
    x: ndarray("float32", [2, 2, 2 * rows, 2 * columns], new Array(16 * rows * columns).fill(0)),
  });
  const whole = numbersOf(asked.output, { ...weights, ...blank(max, max) });
  const side = fc.integer({ min: 1, max });

  it("are taken from the middle of the table for every size", () => {
    expect(new Set(whole.map((x) => x.toFixed(9))).size).toBeGreaterThan(100);
    fc.assert(
      fc.property(side, side, (rows, columns) => {
        const { output } = trace(stored, { size: [2 * rows, 2 * columns] });
        const found = numbersOf(output, { ...weights, ...blank(rows, columns) });
        const [top, left] = [Math.floor((max - rows) / 2), Math.floor((max - columns) / 2)];
        const expected = [0, 1, 2, 3].flatMap((plane) =>
          Array.from({ length: 2 * rows }, (_, y) =>
            Array.from({ length: 2 * columns }, (__, x) => {
              const at = (plane * 2 * max + 2 * top + y) * 2 * max + 2 * left + x;
              return whole[at]!;
            }),
          ).flat(),
        );
        expectClose(found, expected);
      }),
      { numRuns: 12, seed: 1 },
    );
  });

  it("are sines and cosines of rows and columns if computed, the same for every size", () => {
    const table = (rows: number, columns: number) => {
      const size = [2 * rows, 2 * columns] as const;
      const computed = trace({ ...stored, positions: { kind: "sin-cos", max } }, { size });
      return computed.params.buffers.get("pos_embed")!.value;
    };
    const full = toNumbers(table(max, max));
    expect(full.slice(16, 20)).toEqual([1, 0.1, 0.01, 0.001].map((x) => Math.fround(Math.sin(x))));
    // Row 2 and column 1 are the first of two rows and four columns.
    const first = (2 * max + 1) * 16;
    expect(toNumbers(table(2, 4)).slice(0, 64)).toEqual(full.slice(first, first + 64));
  });

  it("outside the table are refused", () => {
    expect(() => trace(stored, { size: [12, 14] })).toThrow(
      "An image of 12×14 is larger than the position table covers; give at most 12×12.",
    );
    expect(() => trace(stored, { size: [12, 13] })).toThrow("cannot be cut into patches");
  });
});

describe("its config", () => {
  const parse = (fields: object) =>
    networkSchema().safeParse({ kind: "mmdit", ...tiny, ...fields }).error?.issues[0]?.message;

  it("is refused if its sizes do not fit each other", () => {
    expect(parse({})).toBeUndefined();
    expect(parse({ heads: 3 })).toContain("3 heads do not divide the hidden width 16");
    expect(parse({ size: [4, 10] })).toContain("make max at least 5");
    expect(parse({ size: [4, 5] })).toContain("cannot be cut into patches");
    expect(parse({ dualAttention: [3] })).toContain("there is no block 3");
    expect(parse({ hidden: 18 })).toContain("a multiple of 4, but it is 18");
    const prompt = { vocabulary: 9, wordWidth: 2, width: 6, depth: 1, heads: 1, length: 5 };
    expect(parse({ prompt })).toContain("gives no pooled text");
    expect(parse({ prompt, condition: own.condition })).toBeUndefined();
  });
});

describe("gradients", () => {
  it.each([
    ["Stable Diffusion 3", tiny],
    ["Stable Diffusion 3.5", later],
    [
      "what else the original code knows",
      {
        ...later,
        depth: 2,
        dualAttention: [1],
        qkNorm: { kind: "layer", affine: true, epsilon: 1e-6 },
        qkvBias: false,
        norm: { kind: "rms", affine: false, epsilon: 1e-6 },
        feedForward: { kind: "swiglu" },
      },
    ],
    ["a small model", { ...later, modulationRank: 3, patches: { kind: "bottleneck", width: 3 } }],
  ] as const satisfies readonly (readonly [string, MMDiTConfig])[])(
    "are the same as by the reference interpreter: %s",
    async (_, config) => {
      const traced = trace(config);
      const declared = weightsIn(traced);
      const gradients = gradient(traced.output.square().mean(), declared);
      const graph = graphOf({ output: traced.output, ...Object.fromEntries(gradients.entries()) });
      verifyGraph(graph);
      // Of greater times float32 rounds the angles, which is not what is asked here.
      const given = { ...randomValues(traced.params), ...inputs, t: times(0.5, 9) };
      const want = evaluateFloat64(graph, given);
      const program = await backend.compile(graph);
      const got = await program.run(given);
      await program.dispose();
      // Of a bias of the keys alone the gradient is zero: what it adds to a row of scores, softmax takes away.
      const cancelled = 2 ** -23 * Math.max(...Object.values(want).map(largest));
      for (const [name, expected] of Object.entries(want)) {
        const numbers = toNumbers(expected);
        const bound = 1e-4 * largest(expected) + cancelled;
        const found = toNumbers(got[name]!);
        for (const [i, x] of numbers.entries()) expect(Math.abs(found[i]! - x)).toBeLessThan(bound);
      }
    },
  );

  it("are the same with recomputed and skipped blocks", () => {
    const gradientOf = (recompute: boolean) => {
      const traced = trace(later, { recompute, skippable: [1] });
      const weight = traced.params.declared.get("joint_blocks.0.x_block.attn.qkv.weight")!.tensor;
      const [slope] = gradient(traced.output.square().mean(), [weight]);
      return numbersOf(slope!, { ...randomValues(traced.params), ...inputs, skip: flags(0, 1) });
    };
    expectClose(gradientOf(true), gradientOf(false));
    expect(trace(later, { recompute: true }).output.shape).toEqual([batch, 2, 4, 6]);
  });
});
