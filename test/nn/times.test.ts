import { describe, expect, it } from "vitest";
import { ndarray, type NdArray } from "../../src/engine/arrays/ndarray.ts";
import { ditPresets } from "../../src/models/dit/config.ts";
import { mmditPresets } from "../../src/models/mmdit/config.ts";
import { type NetworkConfig, traceNetwork } from "../../src/models/network.ts";
import { uViTPresets } from "../../src/models/u-vit/config.ts";
import { randomArray } from "../support/arrays.ts";
import { numbersOf, randomValues } from "../support/network-values.ts";

const small = {
  size: [4, 8],
  channels: 2,
  learnedVariance: false,
  hidden: 24,
  heads: 2,
  depth: 2,
} as const;
const text = { kind: "text", width: 6, length: 5 } as const;
const dit = { kind: "dit", ...ditPresets["DiT-S/2"], ...small, condition: text } as const;
const mmdit = {
  kind: "mmdit",
  ...mmditPresets["SD3-medium"],
  ...small,
  positions: { kind: "sin-cos", max: 8 },
  condition: text,
} as const;

const networks: Record<string, NetworkConfig> = {
  "DiT with adaLN-zero": dit,
  "DiT with text among the patches": { ...dit, block: { kind: "adaLN", text: "in-context" } },
  "DiT with cross-attention to the text": {
    ...dit,
    block: { kind: "adaLN-zero", text: "cross-attention" },
    modulationRank: 3,
  },
  MMDiT: mmdit,
};

const [B, N] = [2, 8];
const given = {
  x: randomArray(5, "float32", [B, 2, 4, 8]),
  y: randomArray(8, "float32", [B, 5, 6]),
  mask: ndarray("bool", [B, 5], [1, 1, 1, 0, 0, 1, 1, 1, 1, 1]),
};
const times = [13, 950, 400, 2, 700, 120, 999, 50];

/** The output of a network at some times; the weights in `zero` are 0. */
function run(config: NetworkConfig, t: NdArray, zero?: RegExp): number[] {
  const { output, params } = traceNetwork(config, { timePerToken: t.shape.length === 2 });
  const weights = Object.entries(randomValues(params)).map(([name, value]) => [
    name,
    zero?.test(name) ? { ...value, data: value.data.slice().fill(0 as never) } : value,
  ]);
  return numbersOf(output, { ...Object.fromEntries(weights), ...given, t });
}

/** The numbers [B, 2, 4, 8] of one patch of 2×2 pixels of all pictures. */
function patchOf(numbers: readonly number[], patch: number): number[] {
  const [top, left] = [2 * Math.floor(patch / 4), 2 * (patch % 4)];
  return numbers.filter((_, i) => {
    const [row, column] = [Math.floor(i / 8) % 4, i % 8];
    return row >= top && row < top + 2 && column >= left && column < left + 2;
  });
}

describe.each(Object.entries(networks))("%s with a time for each token", (_, config) => {
  it("equals the result for one time a picture if all times are equal", () => {
    const one = run(config, ndarray("float32", [B], [700, 3]));
    const each = run(
      config,
      ndarray(
        "float32",
        [B, N],
        [700, 3].flatMap((time) => new Array<number>(N).fill(time)),
      ),
    );
    for (const [i, value] of each.entries()) expect(value).toBeCloseTo(one[i]!, 9);
  });

  it("modulates each token by its own time", () => {
    // Without attention between patches, each depends on its own time alone.
    const zero = /attn\.proj\./;
    const mixed = run(config, ndarray("float32", [B, N], [...times, ...times.toReversed()]), zero);
    for (const [patch, time] of times.entries()) {
      const opposite = times[N - 1 - patch]!;
      const alone = run(config, ndarray("float32", [B], [time, opposite]), zero);
      const expected = patchOf(alone, patch);
      for (const [i, value] of patchOf(mixed, patch).entries()) {
        expect(value).toBeCloseTo(expected[i]!, 9);
      }
    }
  });
});

describe("times of another shape", () => {
  const trace = (config: NetworkConfig) => () => traceNetwork(config, { timePerToken: true });

  it("fail in networks that take one time a picture", () => {
    const uViT = { kind: "u-vit", ...uViTPresets["U-ViT-S/2-COCO"], ...small } as const;
    expect(trace(uViT)).toThrow("The times of this U-ViT are [B, 8]; give one a picture, [B].");
    expect(trace({ ...dit, block: { kind: "in-context" } })).toThrow("The times of this DiT are");
  });

  it("fail when there is not one for each patch", () => {
    const { inputs } = traceNetwork(dit, { timePerToken: true });
    expect(() =>
      traceNetwork(
        { ...dit, size: [4, 4] },
        { from: { x: traceNetwork({ ...dit, size: [4, 4] }).inputs["x"]!, t: inputs["t"]! } },
      ),
    ).toThrow("or one a patch, [B, 4]");
  });
});
