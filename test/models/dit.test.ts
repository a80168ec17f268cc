import path from "node:path";
import { describe, expect, it } from "vitest";
import { countMultiplyAdds, countParameters } from "../../src/engine/passes/cost.ts";
import { ShapeError } from "../../src/engine/errors.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { constantOf, input } from "../../src/engine/graph/functional.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch, batchTimes, formatDim } from "../../src/engine/graph/shape.ts";
import { verifyGraph } from "../../src/engine/passes/verify.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import { type BlockDesign, type DiTConfig, ditPresets } from "../../src/models/dit/config.ts";
import { imageSizes, networkSchema, traceNetwork } from "../../src/models/network.ts";
import { ditConfig } from "../../src/models/dit/checkpoint.ts";
import { dit, ditWithGuidance } from "../../src/models/dit/dit.ts";
import { createParams, initialize } from "../../src/nn/params.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { openSafetensorsFile } from "../../src/weights/safetensors/file-node.ts";
import { randomArray } from "../support/arrays.ts";
import { numbersOf, randomValues } from "../support/network-values.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const oracle = path.join(fixtures, "dit");
const backend = nodeBackend("cpu");

const designs: readonly BlockDesign[] = [
  { kind: "in-context" },
  { kind: "cross-attention" },
  { kind: "adaLN" },
  { kind: "adaLN-zero" },
];
const tiny: DiTConfig = {
  ...ditPresets["DiT-S/2"],
  size: [4, 6],
  channels: 2,
  hidden: 16,
  depth: 2,
  heads: 2,
  condition: { kind: "class", classes: 3, nullClass: true },
};
const textual: DiTConfig = { ...tiny, condition: { kind: "text", width: 6, length: 5 } };

const image = (count: number, seed = 5) => randomArray(seed, "float32", [count, 2, 4, 6]);
const times = (...t: number[]) => ndarray("float32", [t.length], t);
const labels = (...y: number[]) => ndarray("int64", [y.length], y);

describe("recordings of the original code", () => {
  it("are reproduced with every gradient", async () => {
    const report = await withRecording(oracle, (recording) =>
      verifyRecording(recording, async () => backend),
    );
    expect(report.outputs.filter((output) => !output.ok)).toEqual([]);
    expect(report.outputs).toHaveLength(44);
    const errors = new Map(report.outputs.map((output) => [output.name, output.max_error!]));
    // Rounding alone moves the original's own output by 4.3e-5.
    expect(errors.get("out.forward")).toBeLessThan(4.3e-5);
    expect(errors.get("out.forward_with_cfg")).toBeLessThan(4.3e-5);
  });

  it("have our position table, bit for bit", async () => {
    const weights = await openSafetensorsFile(path.join(oracle, "weights.safetensors"));
    const config = ditConfig(
      fieldReader("args", { input_size: 8, hidden_size: 64, depth: 1, num_heads: 4 }),
    );
    const { buffers } = traceNetwork({ kind: "dit", ...config }).params;
    expect(buffers.get("pos_embed")!.value).toEqual(await weights.read("pos_embed"));
    await weights.close();
  });
});

// "Scalable Diffusion Models with Transformers", tables 1 and 4; counts of the original code, in 10⁹ multiply-adds.
describe.each([
  ["DiT-S/8", 33_142_016, 33, 0.36],
  ["DiT-S/4", 32_920_448, 33, 1.41],
  ["DiT-S/2", 32_865_056, 33, 6.06],
  ["DiT-B/8", 130_869_248, 131, 1.42],
  ["DiT-B/4", 130_426_496, 130, 5.56],
  ["DiT-B/2", 130_315_808, 130, 23.01],
  ["DiT-L/8", 458_578_432, 459, 5.01],
  ["DiT-L/4", 457_988_224, 458, 19.7],
  ["DiT-L/2", 457_840_672, 458, 80.71],
  ["DiT-XL/8", 675_664_640, 676, 7.39],
  ["DiT-XL/4", 675_000_704, 675, 29.05],
  ["DiT-XL/2", 674_834_720, 675, 118.64],
] as const)("%s", (name, parameters, millions, published) => {
  it("has the original's parameters, and the paper's Gflops within its rounding", () => {
    const { output, tokens } = traceNetwork({ kind: "dit", ...ditPresets[name] });
    const graph = graphOf({ output });
    expect(countParameters(graph)).toBe(parameters);
    expect(Math.round(parameters / 1e6)).toBe(millions);
    const gflops = countMultiplyAdds(graph, 1) / 1e9;
    // By its matrix products alone DiT-B/4 takes 5.5652, which no rounding makes 5.56.
    const expected = name === "DiT-B/4" ? 5.57 : published;
    expect(gflops.toFixed(2)).toBe(expected.toFixed(2));
    expect(tokens).toBe((32 / ditPresets[name].patch) ** 2);
  });
});

it.each([
  ["in-context", 119.4],
  ["cross-attention", 137.6],
  ["adaLN", 118.6],
  ["adaLN-zero", 118.6],
] as const)("DiT-XL/2 with %s blocks takes the paper's Gflops", (kind, published) => {
  const config: DiTConfig = { ...ditPresets["DiT-XL/2"], block: { kind } };
  const gflops =
    countMultiplyAdds(graphOf({ output: traceNetwork({ kind: "dit", ...config }).output }), 1) /
    1e9;
  expect(Math.abs(gflops - published)).toBeLessThan(0.1);
});

describe("a new model", () => {
  it("of adaLN-zero blocks passes its tokens on unchanged", () => {
    const weights = (depth: number) => {
      const { params, output } = traceNetwork({ kind: "dit", ...tiny, depth });
      const first = initialize(params, randomKey(1));
      const shape = first["final_layer.linear.weight"]!.shape;
      // What else is zero at first would hide what the blocks give.
      const opened = { "final_layer.linear.weight": randomArray(2, "float32", shape) };
      const inputs = { x: image(2), t: times(500, 3), y: labels(1, 3) };
      return numbersOf(output, { ...first, ...opened, ...inputs });
    };
    expect(weights(3)).toEqual(weights(0));
    expect(weights(0).some((x) => x !== 0)).toBe(true);
  });

  it.each(designs)("of $kind blocks predicts zero", (block) => {
    const { params, output } = traceNetwork({ kind: "dit", ...tiny, block });
    const inputs = { x: image(1), t: times(500), y: labels(1) };
    const values = { ...initialize(params, randomKey(1)), ...inputs };
    expect(new Set(numbersOf(output, values))).toEqual(new Set([0]));
  });
});

const withText = (block: BlockDesign): DiTConfig => ({ ...textual, block });

describe("a text", () => {
  const routes: readonly BlockDesign[] = [
    ...designs,
    { kind: "adaLN-zero", text: "in-context" },
    { kind: "adaLN-zero", text: "cross-attention" },
  ];
  const mask = ndarray("bool", [2, 5], [1, 1, 1, 0, 0, 1, 1, 0, 0, 0]);
  const text = randomArray(8, "float32", [2, 5, 6]);
  /** Other numbers where the mask says padding; among them the same ones in another order. */
  const padded = (f: (x: number, i: number) => number): NdArray => {
    const data = Float32Array.from(text.data as Float32Array, (x, i) =>
      Number(mask.data[Math.floor(i / 6)]) === 1 ? x : f(x, i),
    );
    return { ...text, data };
  };

  it.each(routes)(
    "affects the output, but its padding does not, in $kind blocks ($text)",
    (block) => {
      const { params, output } = traceNetwork({ kind: "dit", ...withText(block) });
      const weights = randomValues(params);
      const run = (y: NdArray) =>
        numbersOf(output, { ...weights, x: image(2), t: times(500, 3), mask, y });
      const expected = run(text);
      // The padding of image 0 and 1 is turned around, and then replaced.
      const turned = padded((_, i) => Number(text.data[(i < 30 ? 18 + 29 : 42 + 59) - i]));
      for (const same of [turned, padded(() => 7)]) {
        const found = run(same);
        for (const [i, x] of found.entries()) expect(x).toBeCloseTo(expected[i]!, 12);
      }
      const other = run({ ...text, data: (text.data as Float32Array).map((x) => x + 0.1) });
      expect(Math.max(...other.map((x, i) => Math.abs(x - expected[i]!)))).toBeGreaterThan(1e-3);
    },
  );

  it.each(routes)("has no effect by words or length when dropped, in $kind blocks", (block) => {
    const config = withText(block);
    const { params, output } = traceNetwork({ kind: "dit", ...config }, { drop: true });
    const weights = randomValues(params);
    const run = (y: NdArray, shown: NdArray, ...drop: number[]) => {
      const inputs = { x: image(2), t: times(500, 3), mask: shown, y };
      return numbersOf(output, { ...weights, ...inputs, drop: ndarray("bool", [2], drop) });
    };
    const none = run(text, mask, 1, 1);
    const all = ndarray("bool", [2, 5], new Array<number>(10).fill(1));
    const others = run(randomArray(9, "float32", [2, 5, 6]), all, 1, 1);
    for (const [i, x] of others.entries()) expect(x).toBeCloseTo(none[i]!, 12);
    expect(run(text, mask, 0, 0)).not.toEqual(none);
  });
});

describe("conditions", () => {
  const weights = (config: DiTConfig) =>
    randomValues(traceNetwork({ kind: "dit", ...config }).params);

  it("replace a dropped class by the null class", () => {
    const dropping = traceNetwork({ kind: "dit", ...tiny }, { drop: true }).output;
    const inputs = { x: image(2), t: times(500, 3), ...weights(tiny) };
    const drop = ndarray("bool", [2], [1, 0]);
    expect(numbersOf(dropping, { ...inputs, y: labels(1, 2), drop })).toEqual(
      numbersOf(traceNetwork({ kind: "dit", ...tiny }).output, { ...inputs, y: labels(3, 2) }),
    );
  });

  it.each(designs)("can be absent in $kind blocks", (block) => {
    const config: DiTConfig = { ...tiny, block, condition: { kind: "none" } };
    const { output, params } = traceNetwork({ kind: "dit", ...config });
    expect(output.shape).toEqual([batch, 4, 4, 6]);
    expect([...params.declared.keys()].filter((key) => key.startsWith("y_embedder"))).toEqual([]);
    const run = (t: number) => numbersOf(output, { ...weights(config), x: image(1), t: times(t) });
    expect(run(1)).not.toEqual(run(2));
  });

  it("without a null class have one row per class, and cannot be dropped", () => {
    const config: DiTConfig = {
      ...tiny,
      condition: { kind: "class", classes: 3, nullClass: false },
    };
    const table = traceNetwork({ kind: "dit", ...config }).params.declared.get(
      "y_embedder.embedding_table.weight",
    )!;
    expect(table.tensor.shape).toEqual([3, 16]);
    expect(() => traceNetwork({ kind: "dit", ...config }, { drop: true })).toThrow(
      "has no null class",
    );
    const args = fieldReader("args", { class_dropout_prob: 0 });
    expect(ditConfig(args).condition).toEqual({ kind: "class", classes: 1000, nullClass: false });
  });

  it("are refused if they are unexpected or missing", () => {
    const [x, t] = [input("x", [batch, 2, 4, 4]), input("t", [batch])];
    expect(() => dit(createParams(), { x, t }, tiny)).toThrow("conditioned on a class; give it as");
    const none: DiTConfig = { ...tiny, condition: { kind: "none" } };
    const y = input("y", [batch], "int64");
    expect(() => dit(createParams(), { x, t, y }, none)).toThrow("has no condition, but a `y`");
  });
});

describe("sizes", () => {
  it("can be any multiple of the patch, and nothing else", () => {
    const trace = (size: readonly [number, number]) =>
      traceNetwork({ kind: "dit", ...tiny, patch: 3 }, { size });
    expect(trace([3, 12]).output.shape).toEqual([batch, 4, 3, 12]);
    expect(trace([3, 12]).tokens).toBe(4);
    expect(() => trace([4, 12])).toThrow(ShapeError);
    expect(() => trace([4, 12])).toThrow(
      "An image of 4×12 cannot be cut into patches of 3×3; use a multiple of 3, such as 3×12.",
    );
  });

  it("are read from one or two numbers", () => {
    expect(ditConfig(fieldReader("args", { input_size: 8 })).size).toEqual([8, 8]);
    expect(ditConfig(fieldReader("args", { input_size: [8, 12] })).size).toEqual([8, 12]);
    expect(() => ditConfig(fieldReader("args", { input_size: [8, 12, 2] }))).toThrow(
      'args has "input_size" = [8,12,2], but it must be a whole number of at least 1, or two.',
    );
  });

  it("double the channels only if the variance is learned", () => {
    const { output } = traceNetwork({ kind: "dit", ...tiny, learnedVariance: false });
    expect(output.shape).toEqual([batch, 2, 4, 6]);
  });
});

describe("guidance", () => {
  const config: DiTConfig = { ...tiny, channels: 4 };
  const [x, t] = [input("x", [batchTimes(2), 4, 4, 6]), input("t", [batchTimes(2)])];
  const y = input("y", [batchTimes(2)], "int64");
  const values = () => {
    const params = createParams();
    const output = dit(params, { x, t, y }, config);
    const first = randomArray(4, "float32", [1, 4, 4, 6]);
    const both = Float32Array.from([...toNumbers(first), ...toNumbers(first)]);
    const weights = randomValues(params);
    const inputs = { x: ndarray("float32", [2, 4, 4, 6], both), t: times(9, 9), y: labels(2, 3) };
    return { output, all: { ...weights, ...inputs } };
  };
  const guided = (scale: number, channels?: number) =>
    ditWithGuidance(createParams(), { x, t, y }, config, constantOf([scale], []), channels);
  const perImage = 8 * 24;

  it("with scale 1 gives the conditional prediction, and with scale 0 the unconditional one", () => {
    const { output, all } = values();
    const plain = numbersOf(output, all);
    const own = (scale: number) => numbersOf(guided(scale), all).slice(0, 3 * 24);
    for (const [i, z] of own(1).entries()) expect(z).toBeCloseTo(plain[i]!, 12);
    expect(own(0)).toEqual(plain.slice(perImage, perImage + 3 * 24));
  });

  it("leaves the channels after the guided ones unchanged", () => {
    const { output, all } = values();
    const plain = numbersOf(output, all);
    const found = numbersOf(guided(4), all);
    expect(found.slice(3 * 24, perImage)).toEqual(plain.slice(3 * 24, perImage));
    expect(found.slice(perImage + 3 * 24)).toEqual(plain.slice(perImage + 3 * 24));
    expect(found.slice(0, 3 * 24)).toEqual(found.slice(perImage, perImage + 3 * 24));
    expect(numbersOf(guided(4, 8), all).slice(perImage)).toEqual(
      numbersOf(guided(4, 8), all).slice(0, perImage),
    );
  });
});

describe("the later recipe", () => {
  const recipe: DiTConfig = {
    ...tiny,
    patches: { kind: "bottleneck", width: 5 },
    rotary: { theta: 10_000 },
    norm: { kind: "rms", affine: true, epsilon: 1e-6 },
    feedForward: { kind: "swiglu" },
    qkNorm: { kind: "rms", affine: true, epsilon: 1e-6 },
  };
  const inputs = { x: image(2), t: times(0.5, 900), y: labels(0, 3) };

  it("has the weight names of JiT", () => {
    const names = [...traceNetwork({ kind: "dit", ...recipe, depth: 1 }).params.declared].map(
      ([name, { tensor }]) => `${name} ${tensor.shape.map(formatDim).join("×")}`,
    );
    expect(names.filter((name) => !name.includes("_embedder.") || name.startsWith("x_"))).toEqual([
      "x_embedder.proj1.weight 5×2×2×2",
      "x_embedder.proj2.weight 16×5",
      "x_embedder.proj2.bias 16",
      "blocks.0.adaLN_modulation.1.weight 96×16",
      "blocks.0.adaLN_modulation.1.bias 96",
      "blocks.0.norm1.weight 16",
      "blocks.0.attn.qkv.weight 48×16",
      "blocks.0.attn.qkv.bias 48",
      "blocks.0.attn.q_norm.weight 8",
      "blocks.0.attn.k_norm.weight 8",
      "blocks.0.attn.proj.weight 16×16",
      "blocks.0.attn.proj.bias 16",
      "blocks.0.norm2.weight 16",
      "blocks.0.mlp.w12.weight 84×16",
      "blocks.0.mlp.w12.bias 84",
      "blocks.0.mlp.w3.weight 16×42",
      "blocks.0.mlp.w3.bias 16",
      "final_layer.adaLN_modulation.1.weight 32×16",
      "final_layer.adaLN_modulation.1.bias 32",
      "final_layer.norm_final.weight 16",
      "final_layer.linear.weight 16×16",
      "final_layer.linear.bias 16",
    ]);
  });

  it.each([
    ["adaLN-zero", recipe],
    ["adaLN", { ...recipe, block: { kind: "adaLN" } }],
    ["in-context", { ...recipe, block: { kind: "in-context" } }],
    [
      "cross-attention with learned positions",
      { ...recipe, block: { kind: "cross-attention" }, positions: { kind: "learned" } },
    ],
    ["no added positions", { ...recipe, positions: { kind: "none" } }],
  ] as const satisfies readonly (readonly [string, DiTConfig])[])(
    "has the same outputs and gradients as the reference interpreter: %s",
    async (_, config) => {
      const { output, params } = traceNetwork({ kind: "dit", ...config });
      const declared = [...params.declared.values()].map(({ tensor }) => tensor);
      const gradients = gradient(output.square().mean(), declared);
      const graph = graphOf({ output, ...Object.fromEntries(gradients.entries()) });
      verifyGraph(graph);
      const weights = randomValues(params);
      const want = evaluateFloat64(graph, { ...weights, ...inputs });
      const program = await backend.compile(graph);
      const got = await program.run({ ...weights, ...inputs });
      await program.dispose();
      for (const [name, expected] of Object.entries(want)) {
        const numbers = toNumbers(expected);
        // Of a bias of the keys alone the gradient is zero: what it adds to a row of scores, softmax takes away.
        const bound = Math.max(1e-4 * Math.max(...numbers.map(Math.abs)), 1e-9);
        const found = toNumbers(got[name]!);
        for (const [i, x] of numbers.entries()) expect(Math.abs(found[i]! - x)).toBeLessThan(bound);
      }
    },
  );

  it("gives the same result with recomputed blocks", () => {
    const gradientOf = (recompute: boolean) => {
      const { output, params } = traceNetwork({ kind: "dit", ...recipe }, { recompute });
      const first = params.declared.get("blocks.0.attn.qkv.weight")!.tensor;
      const weights = randomValues(params);
      const [slope] = gradient(output.square().mean(), [first]);
      return numbersOf(slope!, { ...weights, ...inputs });
    };
    expect(gradientOf(true)).toEqual(gradientOf(false));
  });
});

describe("a canvas", () => {
  const given: DiTConfig = {
    ...tiny,
    condition: { kind: "text", width: 6, length: 1 },
    canvas: { width: 3 },
  };
  const inputs = {
    x: input("x", [batch, 2, 4, 6]),
    t: input("t", [batch]),
    y: input("y", [batch, 1, 6]),
    drop: input("drop", [batch], "bool"),
  };
  const trace = (config: DiTConfig) => {
    const params = createParams();
    const output = dit(params, inputs, config);
    return { params, output };
  };
  const values = {
    x: image(2),
    t: times(100, 900),
    y: randomArray(8, "float32", [2, 1, 6], -1, 1),
    drop: ndarray("bool", [2], [0, 1]),
  };
  const run = ({ params, output }: ReturnType<typeof trace>, changed: Record<string, NdArray>) =>
    toNumbers(
      evaluateFloat64(graphOf({ output }), { ...values, ...randomValues(params), ...changed })[
        "output"
      ]!,
    );

  it("adds to each token what its map has at the place: a bias of the map moves one patch's token alone", () => {
    const whole = trace({ ...given, depth: 0 });
    const base = run(whole, {});
    // Six patches of 2×2 pixels; the third one of the first row is columns 4 and 5.
    const bias = toNumbers(randomValues(whole.params)["canvas.map.bias"]!);
    const moved = bias.map((value, i) => (Math.floor(i / 3) === 2 ? value + 1 : value));
    const other = run(whole, { "canvas.map.bias": ndarray("float32", [bias.length], moved) });
    const changed = other.flatMap((value, i) => (value === base[i] ? [] : [i]));
    expect(new Set(changed.map((i) => i % 6))).toEqual(new Set([4, 5]));
    expect(new Set(changed.map((i) => Math.floor(i / 6) % 4))).toEqual(new Set([0, 1]));
  });

  it("is drawn from the condition, and from the trained vector where it is dropped", () => {
    const whole = trace(given);
    const base = run(whole, {});
    const other = run(whole, { y: randomArray(9, "float32", [2, 1, 6], -1, 1) });
    const half = base.length / 2;
    expect(other.slice(0, half)).not.toEqual(base.slice(0, half));
    expect(other.slice(half)).toEqual(base.slice(half));
  });

  it("changes nothing where its weights are zero", () => {
    const zeros = (...shape: number[]) =>
      ndarray("float32", shape, new Array<number>(shape.reduce((a, b) => a * b)).fill(0));
    const { canvas: _, ...plain } = given;
    const [whole, without] = [trace(given), trace(plain)];
    const weights = randomValues(whole.params);
    const found = run(whole, {
      "canvas.proj.weight": zeros(16, 3),
      "canvas.proj.bias": zeros(16),
    });
    const shared = [...without.params.declared.keys()].map((name) => [name, weights[name]!]);
    expect(found).toEqual(run(without, Object.fromEntries(shared)));
  });

  it("is refused without a condition, and fixes the size of pictures", () => {
    const { error } = networkSchema().safeParse({
      kind: "dit",
      ...given,
      condition: { kind: "none" },
    });
    expect(error?.issues[0]?.message).toBe(
      "a canvas is drawn from the condition, but there is none; leave it out",
    );
    expect(imageSizes(networkSchema().parse({ kind: "dit", ...given })).fixed).toBe(true);
  });
});
