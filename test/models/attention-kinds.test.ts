import { describe, expect, it } from "vitest";
import { ShapeError } from "../../src/engine/errors.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { graphToString } from "../../src/engine/graph/print.ts";
import { networkSchema, type NetworkConfig, traceNetwork } from "../../src/models/network.ts";
import { mmditPresets } from "../../src/models/mmdit/config.ts";
import { uViTPresets } from "../../src/models/u-vit/config.ts";
import { declaredTensors } from "../../src/nn/params.ts";
import { numbersOf, randomValues } from "../support/network-values.ts";
import { randomArray } from "../support/arrays.ts";
import { tinyNetwork } from "../support/tiny-model.ts";

const condition = { kind: "class", classes: 3, nullClass: true } as const;
const sizes = { size: [16, 16], channels: 3, patch: 4, hidden: 16, heads: 2, condition } as const;
const networks: Readonly<Record<string, NetworkConfig>> = {
  dit: { ...tinyNetwork, ...sizes },
  "dit with its class among the tokens": {
    ...tinyNetwork,
    ...sizes,
    block: { kind: "in-context" },
  },
  "u-vit": { kind: "u-vit", ...uViTPresets["U-ViT-S/2-CIFAR10"], ...sizes, depth: 2 },
  mmdit: {
    kind: "mmdit",
    ...mmditPresets["SD3-medium"],
    ...sizes,
    depth: 2,
    positions: { kind: "sin-cos", max: 4 },
  },
};
const kinds = [
  { kind: "linear" },
  { kind: "window", size: 2 },
  { kind: "tile", size: 1, window: 3 },
  { kind: "compressed", factor: 2 },
] as const;

describe.each(Object.entries(networks))("%s", (_, config) => {
  it.each(kinds)("learns with attention of kind %o", (attention) => {
    const { params, output } = traceNetwork({ ...config, attention });
    const full = traceNetwork(config);
    const values = {
      ...randomValues(params),
      x: randomArray(90, "float32", [2, 3, 16, 16]),
      t: randomArray(91, "float32", [2], 0, 999),
      y: { dtype: "int64", shape: [2], data: BigInt64Array.from([0n, 2n]) } as const,
    };
    const all = declaredTensors(params);
    const sums = numbersOf(
      gradient(output.square().sum(), all)
        .map((each) => each.abs().sum().reshape([1]))
        .reduce((a, b) => a.add(b)),
      values,
    );
    expect(sums[0]).toBeGreaterThan(0);
    expect(sums.every(Number.isFinite)).toBe(true);
    expect(numbersOf(output, values)).not.toEqual(numbersOf(full.output, values));
  });

  it("is the same with full attention as without a choice", () => {
    const printed = (given: NetworkConfig) =>
      graphToString(graphOf({ output: traceNetwork(given).output }));
    expect(printed({ ...config, attention: { kind: "full" } })).toBe(printed(config));
  });
});

describe("a choice that does not fit", () => {
  const problem = (attention: object, size: readonly number[] = [16, 16]) =>
    networkSchema()
      .safeParse({ ...networks["dit"], size, attention })
      .error?.issues.map(({ message }) => message);

  it("is refused with what fits", () => {
    expect(problem({ kind: "window", size: 3 })).toEqual([
      "windows of 3 patches do not divide the 4×4 patches of the picture; choose 2 or 4, or another patch",
    ]);
    expect(problem({ kind: "compressed", factor: 4 }, [16, 24])).toEqual([
      "a factor of 4 does not divide the 4×6 patches of the picture; choose 2, or another patch",
    ]);
    expect(problem({ kind: "window", size: 16 })).toBeUndefined();
    expect(problem({ kind: "tile", size: 3, window: 3 })).toEqual([
      "tiles of 3 patches do not divide the 4×4 patches of the picture; choose 2 or 4, or another patch",
    ]);
    expect(problem({ kind: "tile", size: 2, window: 4 })).toEqual([
      "an even number of tiles has no middle; choose 3 or 5",
    ]);
  });

  it("is named where a picture of another size is drawn", () => {
    const config = { ...networks["dit"]!, attention: { kind: "window", size: 2 } };
    expect(() => traceNetwork(config, { size: [16, 20] })).toThrow(ShapeError);
    expect(() => traceNetwork(config, { size: [16, 20] })).toThrow(
      "The 4×5 patches of this picture cannot be cut into windows of 2×2 for attention",
    );
    const tiled = { ...config, attention: { kind: "tile", size: 2, window: 3 } };
    expect(() => traceNetwork(tiled, { size: [16, 20] })).toThrow(
      "The 4×5 patches of this picture cannot be cut into tiles of 2×2 for attention",
    );
  });
});
