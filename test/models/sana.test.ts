import path from "node:path";
import { describe, expect, it } from "vitest";
import { toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import {
  countMultiplyAdds,
  countParameters,
  estimateMemory,
} from "../../src/engine/passes/cost.ts";
import { normal, randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../../src/engine/runtime/stored-weight.ts";
import { networkPresets, networkSchema, traceNetwork } from "../../src/models/network.ts";
import { sanaPresets } from "../../src/models/sana/config.ts";
import { linearAttention } from "../../src/nn/attention.ts";
import { createParams, initialize } from "../../src/nn/params.ts";
import { publishedModel } from "../../src/pipelines/open/published-checkpoint.ts";
import { trainModel } from "../../src/training/index.ts";
import { openWords } from "../../src/training/run/words-node.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import { checkKeys } from "../../src/weights/check-keys.ts";
import { publishedShapes, shapedWeights } from "../support/shaped-weights.ts";

const backend = nodeBackend("cpu");

describe("Sana", () => {
  it("reproduces the recording of diffusers with its gradients", async () => {
    const folder = path.resolve(import.meta.dirname, "../fixtures/sana");
    const report = await withRecording(folder, (recording) =>
      verifyRecording(recording, async () => backend),
    );
    expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
    expect(report.outputs.length).toBe(56);
  });

  it("has the keys and the parameters of the published checkpoint, and is recognised by them", () => {
    const { params, output } = traceNetwork(networkPresets().get("Sana-1.6B")!);
    const checkpoint = shapedWeights(publishedShapes("Sana-1.6B"));
    expect(() => checkKeys(params, checkpoint)).not.toThrow();
    expect([...params.declared.keys()].sort()).toEqual([...checkpoint.entries.keys()].sort());
    expect(countParameters(graphOf({ output }))).toBe(1_604_462_752);
    const network = { kind: "sana", ...sanaPresets["Sana-1.6B"] };
    expect(publishedModel(checkpoint).network).toEqual(network);
    expect(networkSchema().parse(network)).toEqual(network);
  });

  it("is trained from scratch on pictures with captions, and refuses those without", async () => {
    const pictures = Array.from({ length: 4 }, (_, i) => ({
      width: 8,
      height: 8,
      channels: 1 as const,
      pixels: Uint8Array.from({ length: 64 }, (__, j) => (i * 40 + j) % 256),
      caption: i % 2 === 0 ? "a cat" : "a dog",
    }));
    const settings = {
      backend,
      network: { kind: "sana", hidden: 32, depth: 1, patch: 2 },
      steps: 30,
      batch: 4,
      threads: 1,
    };
    const words = await openWords();
    const losses: number[] = [];
    const { card } = await trainModel({
      ...settings,
      pictures,
      words,
      onEvent: (event) => event.kind === "step" && losses.push(event.loss),
    });
    expect(card.network).toMatchObject({ kind: "sana", positions: null });
    expect(losses.at(-1)).toBeLessThan(0.8 * losses[0]!);
    const plain = pictures.map((picture) => ({ ...picture, caption: undefined }));
    await expect(trainModel({ ...settings, pictures: plain })).rejects.toThrow(
      /A Sana draws from texts, but .* has no captions; set model.condition to text/,
    );
  });
});

describe("linear attention", () => {
  const [HEADS, WIDTH] = [2, 8];
  const traced = (tokens: number) => {
    const params = createParams();
    const x = input("x", [batch, tokens, WIDTH]);
    return { params, graph: graphOf({ y: linearAttention(params, x, { heads: HEADS }) }) };
  };

  it("is the sum over all tokens, weighted by products of rectified queries and keys", async () => {
    const N = 5;
    const { params, graph } = traced(N);
    const weights = initialize(params, randomKey(1));
    const x = normal(randomKey(2), [1, N, WIDTH]);
    const program = await backend.compile(graph, { weights: arrayWeights(weights) });
    const got = toNumbers((await program.run({ x }))["y"]!);
    await program.dispose();
    const at = (name: string, row: readonly number[]) => {
      const [weight, bias] = [weights[`${name}.weight`]!.data, weights[`${name}.bias`]!.data];
      return Array.from({ length: WIDTH }, (_, i) =>
        row.reduce((sum, value, j) => sum + value * weight[i * WIDTH + j]!, bias[i]!),
      );
    };
    const rows = Array.from({ length: N }, (_, n) =>
      Array.from(x.data.subarray(n * WIDTH, (n + 1) * WIDTH)),
    );
    const relu = (row: readonly number[]) => row.map((value) => Math.max(0, value));
    const [q, k] = [
      rows.map((row) => relu(at("to_q", row))),
      rows.map((row) => relu(at("to_k", row))),
    ];
    const v = rows.map((row) => at("to_v", row));
    const size = WIDTH / HEADS;
    const wanted = q.flatMap((query) => {
      const mixed = Array.from({ length: HEADS }, (_, head) => {
        const own = (row: readonly number[]) => row.slice(head * size, (head + 1) * size);
        const scores = k.map((key) =>
          own(key).reduce((sum, value, i) => sum + value * own(query)[i]!, 0),
        );
        const whole = scores.reduce((sum, score) => sum + score, 0) + 1e-15;
        return Array.from(
          { length: size },
          (__, i) => scores.reduce((sum, score, m) => sum + score * own(v[m]!)[i]!, 0) / whole,
        );
      }).flat();
      return at("to_out.0", mixed);
    });
    for (const [i, value] of wanted.entries()) expect(got[i]).toBeCloseTo(value, 5);
  });

  it("costs in proportion to the number of tokens", () => {
    const [few, many] = [traced(256).graph, traced(4 * 256).graph];
    expect(countMultiplyAdds(many, 1) / countMultiplyAdds(few, 1)).toBeCloseTo(4, 1);
    const { activations } = estimateMemory(few, 1);
    expect(estimateMemory(many, 1).activations / activations).toBeLessThan(4.1);
  });
});
