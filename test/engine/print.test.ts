import { describe, expect, it } from "vitest";
import { recompute } from "../../src/engine/graph/recompute.ts";
import { constantOf, full, input, parameter } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { graphToString } from "../../src/engine/graph/print.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { apply } from "../../src/engine/graph/tensor.ts";
import { ditTraining } from "../support/models.ts";

const lines = (...text: string[]) => text.join("\n");

describe("graphToString", () => {
  it("prints a layer", () => {
    const x = input("x", [batch, 64, 4]);
    const w = parameter("blocks.0.qkv.weight", [12, 4]);
    const y = x
      .layerNorm()
      .linear(w, parameter("blocks.0.qkv.bias", [12]))
      .mul(0.5);
    const [q, k] = y.rearrange("b n (h d) -> b h n d", { h: 2 }).split(2, -1);
    expect(graphToString(graphOf({ q: q!, scores: q!.matmul(k!, { transposeB: true }) }))).toBe(
      lines(
        "x = input : float32 [B, 64, 4]",
        "blocks.0.qkv.weight = parameter : float32 [12, 4]",
        "%0, %1, %2 = layerNorm(x, epsilon: 0.00001) : float32 [B, 64, 4], float32 [B, 64, 1], float32 [B, 64, 1]",
        "blocks.0.qkv.bias = parameter : float32 [12]",
        "%3 = linear(%0, blocks.0.qkv.weight, blocks.0.qkv.bias) : float32 [B, 64, 12]  // blocks.0.qkv",
        "%4 = mul(%3, 0.5) : float32 [B, 64, 12]  // blocks.0.qkv",
        "%5 = reshape(%4) : float32 [B, 64, 2, 6]  // blocks.0.qkv",
        "%6 = transpose(%5, permutation: [0, 2, 1, 3]) : float32 [B, 2, 64, 6]  // blocks.0.qkv",
        "%7, %8 = split(%6, axis: 3, sizes: [3, 3]) : float32 [B, 2, 64, 3], float32 [B, 2, 64, 3]  // blocks.0.qkv",
        "%9 = matmul(%7, %8, transposeB) : float32 [B, 2, 64, 64]  // blocks.0.qkv",
        "return q: %7, scores: %9",
      ),
    );
  });

  it("prints constants in short, filled tensors, and scalars where they are used", () => {
    const few = constantOf([1, 1 / 3], [2]);
    const many = constantOf([1, 2, 3, 4, 5, 6], [3, 2], "int64").cast("float32");
    const y = many
      .add(few)
      .add(full([2], 7))
      .maximum(-Infinity)
      .pad(
        [
          [1, 0],
          [0, 0],
        ],
        1.5,
      );
    expect(graphToString(graphOf({ y }))).toBe(
      lines(
        "%0 = constant([1, 0.3333]) : float32 [2]",
        "%1 = constant([1, 2, 3, 4, …]) : int64 [3, 2]",
        "%2 = cast(%1) : float32 [3, 2]",
        "%3 = add(%2, %0) : float32 [3, 2]",
        "%4 = full(7) : float32 [2]",
        "%5 = add(%3, %4) : float32 [3, 2]",
        "%6 = maximum(%5, -Infinity) : float32 [3, 2]",
        "%7 = pad(%6, padding: [[1, 0], [0, 0]], value: 1.5) : float32 [4, 2]",
        "return y: %7",
      ),
    );
  });

  it("indents the block of a recompute node below it", () => {
    const x = input("x", [2]);
    const y = recompute([x.exp()], (a) =>
      recompute([a.neg()], (b) => b.mul(parameter("w", [2]))).add(a),
    );
    expect(graphToString(graphOf({ y: apply("barrier", [y, x], {}) }))).toBe(
      lines(
        "x = input : float32 [2]",
        "%0 = exp(x) : float32 [2]",
        "w = parameter : float32 [2]",
        "%1 = recompute(%0, w) : float32 [2]  // w",
        "  block(%2, w)",
        "  %3 = neg(%2) : float32 [2]",
        "  %4 = recompute(%3, w) : float32 [2]  // w",
        "    block(%5, w)",
        "    %6 = mul(%5, w) : float32 [2]  // w",
        "    return output: %6",
        "  %7 = add(%4, %2) : float32 [2]  // w",
        "  return output: %7",
        "%8 = barrier(%1, x) : float32 [2]  // w",
        "return y: %8",
      ),
    );
  });

  it("does not depend on earlier tensors", () => {
    const config = { tokens: 2, hidden: 4, heads: 2, depth: 2 };
    const first = graphToString(ditTraining(config, true));
    expect(graphToString(ditTraining(config, true))).toBe(first);
    expect(first).not.toContain("undefined");
    expect(first).not.toContain("?");
  });
});
