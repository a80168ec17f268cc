import { describe, expect, it } from "vitest";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { type Graph, graphOf, is, leafName } from "../../src/engine/graph/graph.ts";
import { graphToString } from "../../src/engine/graph/print.ts";
import { resolve } from "../../src/engine/graph/shape.ts";
import type { Node, Tensor } from "../../src/engine/graph/tensor.ts";
import { lower } from "../../src/engine/onnx/lower.ts";
import { simplify } from "../../src/engine/passes/simplify.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { ditPresets } from "../../src/models/dit/config.ts";
import { mmditPresets } from "../../src/models/mmdit/config.ts";
import { type NetworkConfig, traceNetwork, type TracedNetwork } from "../../src/models/network.ts";
import { uViTPresets } from "../../src/models/u-vit/config.ts";
import { createParams } from "../../src/nn/params.ts";
import { withTaps } from "../../src/nn/taps.ts";
import { randomArray } from "../support/arrays.ts";
import { randomValues } from "../support/network-values.ts";

const small = { size: [4, 8], channels: 2, patch: 2, hidden: 24, heads: 2, depth: 2 } as const;
const text = { kind: "text", width: 6, length: 5 } as const;
const dit = { kind: "dit", ...ditPresets["DiT-S/2"], ...small } as const satisfies NetworkConfig;

const networks: Record<string, NetworkConfig> = {
  DiT: dit,
  "DiT with text among the patches": {
    ...dit,
    condition: text,
    block: { kind: "adaLN-zero", text: "in-context" },
    rotary: { theta: 100 },
    qkNorm: { kind: "rms", affine: true, epsilon: 1e-6 },
  },
  "DiT with cross-attention": { ...dit, condition: text, block: { kind: "cross-attention" } },
  MMDiT: {
    kind: "mmdit",
    ...mmditPresets["SD3.5-medium"],
    ...small,
    positions: { kind: "sin-cos", max: 8 },
    dualAttention: [0],
    condition: text,
  },
  "U-ViT": {
    kind: "u-vit",
    ...uViTPresets["U-ViT-S/2-COCO"],
    ...small,
    condition: text,
  },
};

const B = 2;
const inputs: Record<string, NdArray> = {
  x: randomArray(5, "float32", [B, 2, 4, 8]),
  t: ndarray("float32", [B], [700, 3]),
  mask: ndarray("bool", [B, 5], [1, 1, 1, 0, 0, 1, 1, 1, 1, 1]),
};

function values({ inputs: names, params }: TracedNetwork): Record<string, NdArray> {
  const { y } = names;
  const condition =
    y?.rank === 1
      ? ndarray("int64", [B], BigInt64Array.of(3n, 8n))
      : randomArray(8, "float32", [B, 5, 6]);
  const given = Object.keys(names).map((name) => [name, name === "y" ? condition : inputs[name]!]);
  return { ...randomValues(params), ...Object.fromEntries(given) };
}

/** The outputs of a graph in ONNX Runtime. */
async function run(graph: Graph, all: Record<string, NdArray>): Promise<Record<string, NdArray>> {
  const names = [...graph.inputs, ...graph.parameters].map(leafName);
  const program = await nodeBackend("cpu").compile(graph);
  const outputs = await program.run(Object.fromEntries(names.map((name) => [name, all[name]!])));
  await program.dispose();
  return outputs;
}

/** softmax(q·kᵀ·scale + bias), one number after another: [B, heads, N, M]. */
function writtenOut(node: Node<"attention">, of: (x: Tensor) => NdArray): number[] {
  const { heads, scale } = node.attributes;
  const [q, k] = [of(node.inputs[0]!), of(node.inputs[1]!)];
  const bias = node.inputs[3] && of(node.inputs[3]);
  const [queries, width] = q.shape.slice(1) as [number, number];
  const [keys, size] = [k.shape[1]!, width / heads];
  const result: number[] = [];
  for (let b = 0; b < B; b++) {
    for (let head = 0; head < heads; head++) {
      for (let n = 0; n < queries; n++) {
        const scores = Array.from({ length: keys }, (_, m) => {
          let product = 0;
          for (let c = head * size; c < (head + 1) * size; c++) {
            product +=
              Number(q.data[(b * queries + n) * width + c]) *
              Number(k.data[(b * keys + m) * width + c]);
          }
          return product * scale + (bias ? Number(bias.data[b * keys + m]) : 0);
        });
        const largest = Math.max(...scores);
        const powers = scores.map((score) => Math.exp(score - largest));
        const sum = powers.reduce((a, c) => a + c);
        result.push(...powers.map((power) => power / sum));
      }
    }
  }
  return result;
}

describe.each(Object.entries(networks))("attention probabilities of %s", (_, config) => {
  it("of every layer are the softmax of its queries and keys, and rows sum to 1", async () => {
    const traced = traceNetwork(config, { taps: ["**.probabilities"] });
    const maps = Object.entries(traced.taps);
    const layers = graphOf({ output: traced.output }).nodes.filter((node) => is(node, "attention"));
    expect(maps.map(([, map]) => map)).toEqual(layers.map((node) => node.outputs[1]));

    const read = [...new Set(layers.flatMap((node) => [...node.inputs]))];
    const named = Object.fromEntries(read.map((tensor, i) => [`read${i}`, tensor]));
    const outputs = await run(graphOf({ ...traced.taps, ...named }), values(traced));
    for (const [i, [name, map]] of maps.entries()) {
      // Scores are in the tens, which float32 holds to about 1e-6.
      const actual = toNumbers(outputs[name]!);
      const expected = writtenOut(layers[i]!, (x) => outputs[`read${read.indexOf(x)}`]!);
      expect(outputs[name]!.shape).toEqual(resolve(map.shape, B));
      expect(expected).toHaveLength(actual.length);
      for (const [at, value] of actual.entries()) expect(value).toBeCloseTo(expected[at]!, 4);
      const keys = outputs[name]!.shape[3]!;
      for (let start = 0; start < actual.length; start += keys) {
        const row = actual.slice(start, start + keys);
        expect(row.reduce((a, b) => a + b)).toBeCloseTo(1, 5);
      }
    }
  });

  it("leave the graph of the output as it is, and its value within rounding", async () => {
    const plain = traceNetwork(config);
    expect(plain.taps).toEqual({});
    const tapped = traceNetwork(config, { taps: ["**"] });
    expect(graphToString(graphOf({ output: tapped.output }))).toBe(
      graphToString(graphOf({ output: plain.output })),
    );
    const outputsOf = ({ output, taps }: TracedNetwork) =>
      run(graphOf({ output, ...taps }), values(plain));
    const [without, having] = [await outputsOf(plain), await outputsOf(tapped)];
    expect(Object.keys(without)).toEqual(["output"]);
    const before = toNumbers(without["output"]!);
    for (const [i, value] of toNumbers(having["output"]!).entries()) {
      expect(Math.abs(value - before[i]!)).toBeLessThan(1e-4 * Math.max(1, Math.abs(value)));
    }
  });
});

describe("taps", () => {
  /** The number of fused attentions: operator types are field 4 of a node, and this one has 18 letters. */
  const fused = (outputs: Readonly<Record<string, Tensor>>) =>
    Buffer.from(lower(simplify(graphOf(outputs))).model)
      .toString("latin1")
      .split("\u0022\u0012MultiHeadAttention").length - 1;

  it("write out the attention of the layers that are asked for, and of no other", () => {
    const trace = (taps: readonly string[]) => {
      const traced = traceNetwork({ ...dit, depth: 3 }, { taps });
      return fused({ output: traced.output, ...traced.taps });
    };
    expect(trace([])).toBe(3);
    expect(trace(["blocks.1.output"])).toBe(3);
    expect(trace(["blocks.1.attn.probabilities"])).toBe(2);
    expect(trace(["blocks.*.attn.probabilities"])).toBe(0);
  });

  it("have the name of their scope, block by block", () => {
    const names = (config: NetworkConfig) =>
      Object.keys(traceNetwork(config, { taps: ["**"] }).taps);
    expect(names(dit)).toEqual([
      "blocks.0.attn.probabilities",
      "blocks.0.output",
      "blocks.1.attn.probabilities",
      "blocks.1.output",
    ]);
    expect(names(networks["U-ViT"]!)).toEqual(
      ["in_blocks.0", "mid_block", "out_blocks.0"].flatMap((block) => [
        `${block}.attn.probabilities`,
        `${block}.output`,
      ]),
    );
    expect(names(networks["MMDiT"]!)).toContain("joint_blocks.0.x_block.attn2.probabilities");
    expect(names(networks["MMDiT"]!)).toContain("joint_blocks.1.x_block.output");
  });

  it("fail for unknown names, with the nearest names in the error", () => {
    expect(() => traceNetwork(dit, { taps: ["blocks.9.output"] })).toThrow(
      'The tap "blocks.9.output" matches no intermediate tensor of the model; use a name such as blocks.',
    );
    expect(() => withTaps(createParams(), ["blocks.0.output"]).taps()).toThrow(
      "because this model has no taps",
    );
  });

  it("keep the activations of the blocks that hold them, and recompute the others", () => {
    const recomputed = (taps: readonly string[]) => {
      const traced = traceNetwork({ ...dit, depth: 3 }, { recompute: true, taps });
      const graph = graphOf({ output: traced.output, ...traced.taps });
      expect(graph.inputs.map(({ node }) => is(node, "input") && node.attributes.name)).toEqual([
        "x",
        "t",
        "y",
      ]);
      return graph.nodes.filter((node) => is(node, "recompute")).length;
    };
    expect(recomputed([])).toBe(3);
    expect(recomputed(["blocks.1.attn.probabilities"])).toBe(2);
    expect(recomputed(["blocks.*.attn.probabilities"])).toBe(0);
  });

  it("are differentiable, so that a loss may read them", () => {
    const { taps, params } = traceNetwork(dit, { taps: ["blocks.0.output"] });
    const loss = taps["blocks.0.output"]!.square().mean();
    const weight = params.declared.get("blocks.0.mlp.fc1.weight")!.tensor;
    expect(gradient(loss, [weight])[0]!.shape).toEqual(weight.shape);
  });
});
