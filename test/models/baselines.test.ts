import path from "node:path";
import { describe, expect, it } from "vitest";
import { countMultiplyAdds, countParameters } from "../../src/engine/passes/cost.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { resolve } from "../../src/engine/graph/shape.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import { ddpmUNetPresets } from "../../src/models/ddpm-unet/config.ts";
import { ddpmUNetConfig } from "../../src/models/ddpm-unet/checkpoint.ts";
import {
  type NetworkConfig,
  networkPresets,
  networkSchema,
  traceNetwork,
  type TraceOptions,
} from "../../src/models/network.ts";
import { uViTPresets } from "../../src/models/u-vit/config.ts";
import { uViTConfig } from "../../src/models/u-vit/checkpoint.ts";
import { checkKeys } from "../../src/weights/check-keys.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { randomArray } from "../support/arrays.ts";
import { numbersOf, randomValues } from "../support/network-values.ts";
import { publishedShapes, shapedWeights } from "../support/shaped-weights.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const backend = nodeBackend("cpu");

const shape = { size: [4, 8], channels: 2, learnedVariance: false } as const;
const uViT = {
  kind: "u-vit",
  ...uViTPresets["U-ViT-S/2-COCO"],
  ...shape,
  hidden: 16,
  depth: 4,
  heads: 2,
  condition: { kind: "text", width: 6, length: 5 },
} as const satisfies NetworkConfig;
const uNet = {
  kind: "ddpm-unet",
  ...ddpmUNetPresets["ADM-64"],
  ...shape,
  width: 32,
  multipliers: [1, 2],
  blocks: 1,
  attention: [2],
  heads: { channels: 16 },
  condition: { kind: "text", width: 6, length: 5 },
} as const satisfies NetworkConfig;
const both = { uViT, uNet };
const classes = { kind: "class", classes: 3, nullClass: true } as const;

function drawn(
  network: NetworkConfig,
  inputs: Record<string, NdArray>,
  options?: TraceOptions,
): number[] {
  const traced = traceNetwork(network, options);
  return numbersOf(traced.output, { ...randomValues(traced.params), x, t, ...inputs });
}

const x = randomArray(5, "float32", [2, 2, 4, 8]);
const t = ndarray("float32", [2], [999.5, 3]);
const y = randomArray(8, "float32", [2, 5, 6]);
const flags = (...values: number[]) => ndarray("bool", [values.length], values);
const mask = (shown: number) =>
  ndarray(
    "bool",
    [2, 5],
    Array.from({ length: 10 }, (_, i) => Number(i % 5 < shown)),
  );

describe("recordings of the original implementations", () => {
  it.each([
    ["u_vit", 71],
    ["u_vit_t2i", 1],
    ["ddpm_unet", 145],
    ["ddpm_unet_plain", 1],
  ])("%s is reproduced with its gradients", async (folder, outputs) => {
    const report = await withRecording(path.join(fixtures, folder), (recording) =>
      verifyRecording(recording, async () => backend),
    );
    expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
    expect(report.outputs.length).toBe(outputs);
  });
});

describe("the published models", () => {
  it.each([
    ["U-ViT-S/2-CIFAR10", 44_255_328],
    ["U-ViT-S/2-COCO", 44_692_644],
    ["U-ViT-S/2-Deep-COCO", 58_345_636],
    ["U-ViT-M/4-64", 130_940_292],
    ["U-ViT-L/4-64", 286_827_652],
    ["U-ViT-L/2-256", 286_763_172],
    ["U-ViT-H/2-256", 500_832_016],
    ["U-ViT-H/4-512", 500_942_656],
    ["DDPM-CIFAR10", 35_746_307],
    ["ADM-64", 295_904_454],
    ["ADM-128", 421_529_606],
    ["ADM-256", 553_838_086],
    ["ADM-512", 558_997_638],
  ])("%s has %d parameters", (name, parameters) => {
    const { output } = traceNetwork(networkPresets().get(name)!);
    expect(countParameters(graphOf({ output }))).toBe(parameters);
  });

  it("cost as much as in the paper", () => {
    const { output } = traceNetwork(networkPresets().get("U-ViT-H/2-256")!);
    // 133.25 in the paper, 133.197 by the original's own code without its position-wise operations.
    expect(countMultiplyAdds(graphOf({ output }), 1) / 1e9).toBeCloseTo(133.2, 1);
  });

  it.each([
    ["U-ViT-H/2-256", "U-ViT-H-2-imagenet256"],
    ["U-ViT-L/2-256", "U-ViT-L-2-imagenet256"],
    ["U-ViT-M/4-64", "U-ViT-M-4-imagenet64"],
    ["U-ViT-S/2-COCO", "U-ViT-S-2-mscoco"],
  ])("%s has the keys of its checkpoint", (name, file) => {
    const { params } = traceNetwork(networkPresets().get(name)!);
    const checkpoint = shapedWeights(publishedShapes(file));
    expect(() => checkKeys(params, checkpoint)).not.toThrow();
    expect([...params.declared.keys()].sort()).toEqual([...checkpoint.entries.keys()].sort());
  });
});

describe.each(Object.entries(both))("%s", (_, network) => {
  it("depends on unmasked tokens only", () => {
    const other = randomArray(9, "float32", [2, 5, 6]);
    const mixed = ndarray(
      "float32",
      [2, 5, 6],
      toNumbers(y).map((value, i) => (i % 30 < 18 ? value : toNumbers(other)[i]!)),
    );
    const heard = drawn(network, { y, mask: mask(3) });
    expect(drawn(network, { y: mixed, mask: mask(3) })).toEqual(heard);
    expect(drawn(network, { y: other, mask: mask(3) })).not.toEqual(heard);
    expect(drawn(network, { y, mask: mask(5) })).not.toEqual(heard);
  });

  it("treats a dropped text as no text", () => {
    const options = { drop: true };
    const other = randomArray(9, "float32", [2, 5, 6]);
    const half = drawn(network, { y, mask: mask(5), drop: flags(1, 0) }, options);
    const swapped = drawn(network, { y: other, mask: mask(2), drop: flags(1, 0) }, options);
    expect(swapped.slice(0, 64)).toEqual(half.slice(0, 64));
    expect(swapped.slice(64)).not.toEqual(half.slice(64));
  });

  it("treats a dropped class as the null class", () => {
    const config = { ...network, condition: classes };
    const labels = (...values: number[]) => ndarray("int64", [2], values);
    const dropped = drawn(config, { y: labels(1, 2), drop: flags(1, 0) }, { drop: true });
    expect(dropped).toEqual(drawn(config, { y: labels(3, 2) }));
    expect(dropped).not.toEqual(drawn(config, { y: labels(1, 2) }));
  });

  it("works without a condition, on x and t alone", () => {
    const config = { ...network, condition: { kind: "none" } } as const;
    const plain = drawn(config, {});
    expect(plain).toHaveLength(2 * 2 * 4 * 8);
    expect(drawn(config, { t: ndarray("float32", [2], [998, 3]) })).not.toEqual(plain);
  });

  it("predicts the variance if the config asks for it", () => {
    const { output } = traceNetwork({ ...network, learnedVariance: true });
    expect(resolve(output.shape, 2)).toEqual([2, 4, 4, 8]);
  });

  it("has the same gradient with recomputed activations", () => {
    const gradients = [false, true].map((recompute) => {
      const traced = traceNetwork(network, { recompute });
      const weight = [...traced.params.declared.values()].find(
        ({ tensor }) => tensor.rank === 2,
      )!.tensor;
      const [slope] = gradient(traced.output.square().mean(), [weight]);
      return numbersOf(slope!, { ...randomValues(traced.params), x, t, y, mask: mask(5) });
    });
    expect(Math.max(...gradients[0]!.map(Math.abs))).toBeGreaterThan(0);
    for (const [i, value] of gradients[1]!.entries())
      expect(value).toBeCloseTo(gradients[0]![i]!, 9);
  });
});

describe("arguments of the originals that no recording covers", () => {
  it("makes a U-ViT's time layers 4 times as wide as its tokens for any mlp_ratio", () => {
    const { params } = traceNetwork({ ...uViT, timeMlp: true, mlpRatio: 2 });
    expect(params.declared.get("time_embed.0.weight")!.tensor.shape).toEqual([64, 16]);
    expect(params.declared.get("time_embed.2.weight")!.tensor.shape).toEqual([16, 64]);
  });

  it("resamples without convolutions like with averaging and repeating ones", () => {
    const network = { ...uNet, residualResampling: false, condition: { kind: "none" } } as const;
    const plain = traceNetwork({ ...network, plainResampling: true });
    const conv = traceNetwork(network);
    const added = [...conv.params.declared.keys()].filter(
      (name) => !plain.params.declared.has(name),
    );
    const [down, up] = ["input_blocks.2.0.op", "output_blocks.1.2.conv"] as const;
    expect(added).toEqual([down, up].flatMap((name) => [`${name}.weight`, `${name}.bias`]));
    const values = randomValues(plain.params);
    // A kernel of 3×3 whose numbers apply to a channel by itself.
    const kernel = (width: number, numbers: readonly number[]) =>
      ndarray(
        "float32",
        [width, width, 3, 3],
        Array.from({ length: width * width * 9 }, (_, i) => {
          const [output, inputs] = [Math.floor(i / (9 * width)), Math.floor(i / 9) % width];
          return output === inputs ? numbers[i % 9]! : 0;
        }),
      );
    const zeros = (width: number) => ndarray("float32", [width], new Array<number>(width).fill(0));
    const drawnPlain = numbersOf(plain.output, { ...values, x, t });
    const drawnConv = numbersOf(conv.output, {
      ...values,
      [`${down}.weight`]: kernel(32, [0, 0, 0, 0, 0.25, 0.25, 0, 0.25, 0.25]),
      [`${down}.bias`]: zeros(32),
      [`${up}.weight`]: kernel(64, [0, 0, 0, 0, 1, 0, 0, 0, 0]),
      [`${up}.bias`]: zeros(64),
      x,
      t,
    });
    expect(Math.max(...drawnPlain.map((value, i) => Math.abs(value - drawnConv[i]!)))).toBeLessThan(
      1e-9,
    );
  });
});

describe("sizes", () => {
  const problem = (config: object) =>
    networkSchema()
      .safeParse(config)
      .error?.issues.map(({ message }) => message);

  it("are fixed for a U-ViT, and multiples of the unit for a U-Net", () => {
    expect(() => traceNetwork(uViT, { size: [8, 8] })).toThrow(
      "This U-ViT has learned positions for 4×8 only, but the image is 8×8; use the size that it was trained for.",
    );
    expect(() => traceNetwork(uNet, { size: [4, 7] })).toThrow(
      "An image of 7×4 cannot be halved 1 times, as this U-Net does; use a multiple of 2.",
    );
    expect(resolve(traceNetwork(uNet, { size: [6, 2] }).output.shape, 1)).toEqual([1, 2, 6, 2]);
  });

  it("that do not fit each other are reported by the config", () => {
    expect(problem(uViT)).toBeUndefined();
    expect(problem(uNet)).toBeUndefined();
    expect(problem({ ...uViT, depth: 3 })).toEqual([
      "half of the blocks come before the middle one and half behind it, so 3 cannot be; give an even number",
    ]);
    expect(problem({ ...uViT, patch: 3 })![0]).toContain("cannot be cut into patches of 3×3");
    expect(problem({ ...uNet, size: [4, 7] })![0]).toContain("4×7 cannot be halved 1 times");
    expect(problem({ ...uNet, width: 48 })![0]).toContain(
      "a level of 48 channels cannot be normed",
    );
    expect(problem({ ...uNet, attention: [4] })).toEqual([
      "no level is 4 times smaller than the picture; the levels are 1, 2",
    ]);
    expect(problem({ ...uNet, heads: { channels: 48 } })![0]).toContain(
      "64 channels do not divide into heads of 48",
    );
  });

  it("and options are read from the arguments of the originals", () => {
    const vit = uViTConfig(fieldReader("args", { img_size: 8, depth: 5, num_classes: 7 }));
    expect(vit).toMatchObject({ size: [8, 8], depth: 4, condition: { kind: "class", classes: 7 } });
    const unet = ddpmUNetConfig(fieldReader("args", { num_head_channels: 32, out_channels: 6 }));
    expect(unet).toMatchObject({ learnedVariance: true, heads: { channels: 32 } });
  });
});
