import { describe, expect, it } from "vitest";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { bytesSource, openSafetensors, safetensorsBytes } from "../../src/weights/index.ts";
import { joinQkv, swapHalves } from "../../src/weights/views.ts";

const open = (tensors: Record<string, NdArray>) =>
  openSafetensors(bytesSource(safetensorsBytes(Object.entries(tensors)), "it"));
const rows = (...values: number[]) => ndarray("float32", [values.length / 2, 2], values);

describe("joinQkv", () => {
  it("joins q, k and v and leaves other tensors", async () => {
    const weights = joinQkv(
      await open({
        "a.to_q.weight": rows(1, 2),
        "a.to_k.weight": rows(3, 4),
        "a.to_v.weight": rows(5, 6),
        "a.to_q.bias": ndarray("float16", [1], [1]),
        "a.to_k.bias": ndarray("float16", [1], [2]),
        "a.to_v.bias": ndarray("float16", [1], [3]),
        "a.to_out.0.weight": rows(7, 8),
      }),
    );
    expect([...weights.entries.keys()].sort()).toEqual([
      "a.to_out.0.weight",
      "a.to_qkv.bias",
      "a.to_qkv.weight",
    ]);
    expect(await weights.read("a.to_qkv.weight")).toEqual(
      ndarray("float32", [3, 2], [1, 2, 3, 4, 5, 6]),
    );
    const bias = await weights.read("a.to_qkv.bias");
    expect([bias.dtype, bias.shape, toNumbers(bias)]).toEqual(["float16", [3], [1, 2, 3]]);
    expect(await weights.read("a.to_out.0.weight")).toEqual(rows(7, 8));
  });

  it("does not join tensors of different shapes", async () => {
    const tensors = {
      "a.to_q.weight": rows(1, 2),
      "a.to_k.weight": rows(3, 4),
      "b.to_q.weight": rows(1, 2),
      "b.to_k.weight": ndarray("float32", [1, 1], [3]),
      "b.to_v.weight": rows(5, 6),
      "c.to_q.weight": rows(1, 2),
      "c.to_k.weight": ndarray("float16", [1, 2], [3, 4]),
      "c.to_v.weight": rows(5, 6),
    };
    const weights = joinQkv(await open(tensors));
    expect([...weights.entries.keys()].sort()).toEqual(Object.keys(tensors).sort());
  });

  it("joins keys and values of another number of heads", async () => {
    const weights = joinQkv(
      await open({
        "to_q.weight": rows(0, 0),
        "a.to_q.weight": rows(1, 2, 3, 4),
        "a.to_k.weight": rows(5, 6),
        "a.to_v.weight": rows(7, 8),
      }),
    );
    expect((await weights.read("a.to_qkv.weight")).shape).toEqual([4, 2]);
  });

  it("joins diffusers' projections of text beside those of the image", async () => {
    const weights = joinQkv(
      await open({
        "a.add_q_proj.weight": rows(1, 2),
        "a.add_k_proj.weight": rows(3, 4),
        "a.add_v_proj.weight": rows(5, 6),
        "a.to_q.weight": rows(7, 8),
        "a.to_k.weight": rows(9, 10),
        "a.to_v.weight": rows(11, 12),
      }),
    );
    expect(toNumbers(await weights.read("a.add_qkv_proj.weight"))).toEqual([1, 2, 3, 4, 5, 6]);
    expect(toNumbers(await weights.read("a.to_qkv.weight"))).toEqual([7, 8, 9, 10, 11, 12]);
    expect(weights.entries.size).toBe(2);
  });
});

describe("swapHalves", () => {
  it("puts the second half of the rows first and leaves other tensors", async () => {
    const weights = swapHalves(
      await open({
        "norm.weight": rows(1, 2, 3, 4, 5, 6, 7, 8),
        "norm.bias": ndarray("float16", [2], [1, 2]),
        "other.bias": ndarray("float16", [2], [1, 2]),
      }),
      (layer) => layer === "norm",
    );
    expect(await weights.read("norm.weight")).toEqual(rows(5, 6, 7, 8, 1, 2, 3, 4));
    expect(toNumbers(await weights.read("norm.bias"))).toEqual([2, 1]);
    expect(toNumbers(await weights.read("other.bias"))).toEqual([1, 2]);
  });
});
