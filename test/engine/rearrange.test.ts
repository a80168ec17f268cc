import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShapeError } from "../../src/engine/errors.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { ndarray, sizeOf, stridesOf, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { batch, batchTimes, type Shape } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";

const range = (length: number) => Array.from({ length }, (_, i) => i);

/** The numbers 0, 1, 2, … of a shape after f. */
function run(shape: readonly number[], f: (x: Tensor) => Tensor): number[] {
  const y = f(input("x", shape, "int64"));
  const { y: found } = evaluateFloat64(graphOf({ y }), {
    x: ndarray("int64", shape, range(sizeOf(shape))),
  });
  return toNumbers(found!);
}

describe("rearrange", () => {
  it.each<[string, Shape, Record<string, number>, Shape]>([
    ["a b -> b a", [2, 3], {}, [3, 2]],
    ["b (h p) (w q) c -> b (h w) (p q c)", [batch, 8, 6, 3], { p: 4, q: 2 }, [batch, 6, 24]],
    ["b n (h d) -> b h n d", [batch, 77, 384], { h: 6 }, [batch, 6, 77, 64]],
    ["b n d -> (b n) d", [batch, 64, 8], {}, [batchTimes(64), 8]],
    ["(b n) d -> b n d", [batchTimes(64), 8], { n: 64 }, [batch, 64, 8]],
    ["(s b) d -> s b d", [batchTimes(2), 8], { s: 2 }, [2, batch, 8]],
    ["a 1 b -> b (a 1)", [2, 1, 3], {}, [3, 2]],
    ["a -> 1 a 1", [5], {}, [1, 5, 1]],
    ["a b -> (a b) ()", [2, 3], {}, [6, 1]],
    ["-> 1", [], {}, [1]],
    ["  a_1   b2->b2 a_1 ", [2, 3], {}, [3, 2]],
  ])('"%s" of %j', (pattern, shape, sizes, expected) => {
    expect(input("x", shape).rearrange(pattern, sizes).shape).toEqual(expected);
  });

  it("cuts an image into patches, row by row", () => {
    const patches = run([4, 4], (x) => x.rearrange("(h p) (w q) -> (h w) (p q)", { p: 2, q: 2 }));
    expect(patches).toEqual([0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]);
  });

  it("is inverted by the mirrored pattern", () => {
    const split = "b (h p) (w q) c -> b (h w) (p q c)";
    const merge = "b (h w) (p q c) -> b (h p) (w q) c";
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 6, maxLength: 6 }), (n) => {
        const [b, h, p, w, q, c] = n as [number, number, number, number, number, number];
        const shape = [b, h * p, w * q, c];
        const back = run(shape, (x) => x.rearrange(split, { p, q }).rearrange(merge, { h, p, q }));
        expect(back).toEqual(range(sizeOf(shape)));
      }),
    );
  });

  it("moves every element to the position that its names give", () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 4, maxLength: 4 });
    const orders = fc.shuffledSubarray(["a", "b", "c", "d"], { minLength: 4 });
    fc.assert(
      fc.property(sizes, orders, fc.nat(3), fc.nat(3), (size, order, cutLeft, cutRight) => {
        const names = ["a", "b", "c", "d"];
        const grouped = (list: readonly string[], cut: number) =>
          `${list.slice(0, cut).join(" ")} (${list.slice(cut).join(" ")})`;
        const known = Object.fromEntries(names.map((name, i) => [name, size[i]!]));
        const shape = [...size.slice(0, cutLeft), sizeOf(size.slice(cutLeft))];
        const pattern = `${grouped(names, cutLeft)} -> ${grouped(order, cutRight)}`;
        const found = run(shape, (x) => x.rearrange(pattern, known));
        const ordered = order.map((name) => known[name]!);
        const strides = stridesOf(ordered);
        for (const from of range(sizeOf(size))) {
          const index = stridesOf(size).map((stride, i) => Math.floor(from / stride) % size[i]!);
          const to = order.reduce(
            (sum, name, i) => sum + index[names.indexOf(name)]! * strides[i]!,
            0,
          );
          expect(found[to]).toBe(from);
        }
      }),
    );
  });

  it("adds no node if nothing moves", () => {
    const x = input("x", [2, 3]);
    expect(x.rearrange("a b -> a b")).toBe(x);
    expect(graphOf({ y: x.rearrange("a b -> (a b)") }).nodes.map(({ op }) => op)).toEqual([
      "input",
      "reshape",
    ]);
  });

  it.each<[string, string, Shape, Record<string, number>]>([
    ["a b", "expected one '->'", [2, 3], {}],
    ["a -> a -> a", "expected one '->'", [2], {}],
    ["a ((b c)) -> a b c", "parentheses do not nest", [2, 3], {}],
    ["a b) -> a b", "a ')' has no matching '('", [2, 3], {}],
    ["(a b -> a b", "a '(' is not closed", [6], {}],
    ["a ... -> ... a", "'.' is neither a name, 1 nor a parenthesis", [2, 3], {}],
    ["a 2 -> a 2", "'2' is neither a name, 1 nor a parenthesis", [2, 2], {}],
    ["a 11 -> a 11", "'11' is neither a name, 1 nor a parenthesis", [2, 1, 1], {}],
    ["a a -> a", "a occurs twice on the left", [2, 2], {}],
    ["a -> a a", "a occurs twice on the right", [2], {}],
    ["a b -> a", "b occurs on one side only", [2, 3], {}],
    ["a -> a b", "b occurs on one side only", [2], {}],
    ["a -> a", "the left side has 1 axes, the tensor 2", [2, 3], {}],
    ["a b -> b a", "a size is given for c, which is not in the pattern", [2, 3], { c: 1 }],
    ["(a b) -> a b", "the sizes of a and b cannot both be inferred; give one of them", [6], {}],
    ["(a b) -> a b", "(a b) does not divide [7]", [7], { a: 2 }],
    ["(a b) -> a b", "(a b) is not [6]", [6], { a: 2, b: 2 }],
    ["a b -> b a", "(a) is not [2]", [2, 3], { a: 3 }],
    ["a 1 -> a", "(1) is not [3]", [2, 3], {}],
    ["(b n) -> b n", "(b n) does not divide [64B]", [batchTimes(64)], { n: 3 }],
  ])('refuses "%s": %s', (pattern, why, shape, sizes) => {
    const make = () => input("x", shape).rearrange(pattern, sizes);
    expect(make).toThrow(ShapeError);
    expect(make).toThrow(`rearrange "${pattern}" of `);
    expect(make).toThrow(why);
  });

  it("names the layer in its errors", () => {
    expect(() => parameter("blocks.1.qkv.weight", [6]).rearrange("a b -> b a")).toThrow(
      'rearrange "a b -> b a" of [6]: the left side has 2 axes, the tensor 1 (at blocks.1.qkv)',
    );
  });
});
