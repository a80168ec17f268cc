import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { batch, resolve } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { createParams } from "../../src/nn/params.ts";
import {
  patchEmbedding,
  patchCount,
  patchGrid,
  patchPixels,
  patchify,
  type PatchOrder,
  unpatchify,
} from "../../src/nn/patches.ts";
import { randomArray } from "../support/arrays.ts";

const orders = fc.constantFrom<PatchOrder>("channels-first", "channels-last");
/** One to three axes of some patches of some pixels. */
const axes = fc.array(fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })), {
  minLength: 1,
  maxLength: 3,
});
const small = fc.integer({ min: 1, max: 4 });

/** Random values for all leaves. */
function run(output: Tensor): number[] {
  const graph = graphOf({ output });
  const leaves = [...graph.inputs, ...graph.parameters];
  const values = leaves.map((leaf, i) => [
    leafName(leaf),
    randomArray(i, "float32", resolve(leaf.shape, 2)),
  ]);
  return toNumbers(evaluateFloat64(graph, Object.fromEntries(values))["output"]!);
}

describe("patches", () => {
  it("are reassembled to the input, over one to three axes", () => {
    fc.assert(
      fc.property(axes, small, orders, (along, channels, order) => {
        const [grid, patch] = [along.map(([count]) => count), along.map(([, size]) => size)];
        const x = input("x", [batch, channels, ...grid.map((count, i) => count * patch[i]!)]);
        expect(patchGrid(x, patch)).toEqual(grid);
        const tokens = patchify(x, patch, order);
        expect(tokens.shape).toEqual([
          batch,
          patchCount(grid),
          channels * patchPixels(patch, grid.length),
        ]);
        const again = unpatchify(tokens, grid, patch, order);
        expect(again.shape).toEqual(x.shape);
        expect(run(again)).toEqual(run(x.add(0)));
      }),
      { seed: 1, numRuns: 60 },
    );
  });

  it("of one frame are the patches of a picture", () => {
    const picture = input("x", [batch, 3, 4, 6]);
    const clip = picture.unsqueeze(2); // [B, 3, 1, 4, 6]
    for (const order of ["channels-first", "channels-last"] as const) {
      expect(run(patchify(clip, [1, 2, 2], order))).toEqual(run(patchify(picture, 2, order)));
    }
  });

  it("are in row-major order and hold their pixels in the requested order", () => {
    const image = input("image", [1, 2, 2, 4]);
    const values = { image: ndarray("float32", [1, 2, 2, 4], [...new Array(16).keys()]) };
    const of = (order: PatchOrder) =>
      toNumbers(evaluateFloat64(graphOf({ y: patchify(image, 2, order) }), values)["y"]!);
    expect(of("channels-first")).toEqual([0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15]);
    expect(of("channels-last")).toEqual([0, 8, 1, 9, 4, 12, 5, 13, 2, 10, 3, 11, 6, 14, 7, 15]);
  });
});

describe("patchEmbedding", () => {
  const image = input("image", [batch, 3, 4, 6]);

  it("is a convolution with stride", () => {
    const p = createParams();
    const tokens = patchEmbedding(p, image, 2, 5, { kind: "linear" });
    const [weight, bias] = ["proj.weight", "proj.bias"].map((key) => p.declared.get(key)!.tensor);
    expect(weight!.shape).toEqual([5, 3, 2, 2]);
    const convolved = image.conv(weight!, bias, { stride: 2 }).rearrange("b c h w -> b (h w) c");
    for (const x of run(tokens.sub(convolved))) expect(x).toBeCloseTo(0, 12);
  });

  it("of a clip is a convolution over three axes", () => {
    const p = createParams();
    const clip = input("clip", [batch, 2, 4, 4, 6]);
    const tokens = patchEmbedding(p, clip, [2, 2, 3], 5, { kind: "linear" });
    const [weight, bias] = ["proj.weight", "proj.bias"].map((key) => p.declared.get(key)!.tensor);
    expect(weight!.shape).toEqual([5, 2, 2, 2, 3]);
    const convolved = clip.conv(weight!, bias, { stride: [2, 2, 3] });
    const expected = convolved.rearrange("b c f h w -> b (f h w) c");
    for (const x of run(tokens.sub(expected))) expect(x).toBeCloseTo(0, 12);
  });

  it("with a bottleneck is two convolutions", () => {
    const p = createParams();
    const tokens = patchEmbedding(p, image, 2, 5, { kind: "bottleneck", width: 4 });
    const of = (key: string) => p.declared.get(key)!.tensor;
    const narrow = image.conv(of("proj1.weight"), undefined, { stride: 2 });
    const wide = narrow.conv(of("proj2.weight").reshape([5, 4, 1, 1]), of("proj2.bias"));
    for (const x of run(tokens.sub(wide.rearrange("b c h w -> b (h w) c")))) {
      expect(x).toBeCloseTo(0, 12);
    }
  });
});
