import { describe, expect, it } from "vitest";
import { input } from "../../src/engine/graph/functional.ts";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { ddpmUNetPresets } from "../../src/models/ddpm-unet/config.ts";
import { ditPresets } from "../../src/models/dit/config.ts";
import { type NetworkConfig, traceNetwork } from "../../src/models/network.ts";
import { mmditPresets } from "../../src/models/mmdit/config.ts";
import { uViTPresets } from "../../src/models/u-vit/config.ts";
import { initialize } from "../../src/nn/params.ts";
import { adamW } from "../../src/training/optimizers.ts";
import { trainingStep } from "../../src/training/step.ts";
import { createTrainer } from "../../src/training/trainer.ts";
import { randomArray } from "../support/arrays.ts";

const IMAGES = 8;
const STEPS = 250;

// All eight begin at the same noise and the same time: only the condition says which image is wanted.
const noise = toNumbers(randomArray(1, "float32", [16]));
const inputs = {
  x: ndarray("float32", [IMAGES, 1, 4, 4], new Array(IMAGES).fill(noise).flat()),
  t: ndarray("float32", [IMAGES], new Array(IMAGES).fill(500)),
  images: randomArray(2, "float32", [IMAGES, 1, 4, 4], -1, 1),
};

/** Loss of the last step. */
async function overfit(network: NetworkConfig, condition: object): Promise<number> {
  const { params, output } = traceNetwork(network);
  const loss = output
    .sub(input("images", [batch, 1, 4, 4]))
    .square()
    .mean();
  const step = trainingStep({
    loss,
    params: Object.fromEntries([...params.declared].map(([name, { tensor }]) => [name, tensor])),
    optimizer: adamW({ learningRate: 3e-3, weightDecay: 0 }),
  });
  const trainer = await createTrainer(nodeBackend("cpu"), step, initialize(params, randomKey(3)));
  let last = Infinity;
  for (let i = 0; i < STEPS; i++) last = (await trainer.step({ ...inputs, ...condition })).loss;
  await trainer.dispose();
  return last;
}

const byClass = { kind: "class", classes: IMAGES, nullClass: false } as const;
const byText = { kind: "text", width: 6, length: 3 } as const;

const shape = { size: [4, 4], channels: 1, learnedVariance: false } as const;
const small = { ...shape, hidden: 32, depth: 2, heads: 2 } as const;
const dit = { kind: "dit", ...ditPresets["DiT-S/2"], ...small } as const;
const mmdit = {
  kind: "mmdit",
  ...mmditPresets["SD3-medium"],
  ...small,
  positions: { kind: "sin-cos", max: 2 },
  qkNorm: { kind: "rms", affine: true, epsilon: 1e-6 },
  dualAttention: [0],
} as const;
const uViT = { kind: "u-vit", ...uViTPresets["U-ViT-S/2-CIFAR10"], ...small } as const;
const uNet = {
  kind: "ddpm-unet",
  ...ddpmUNetPresets["ADM-64"],
  ...shape,
  width: 32,
  multipliers: [1, 1],
  blocks: 1,
  attention: [2],
  heads: { count: 2 },
} as const;

/** Whole networks but for what they are told. */
const networks = {
  "DiT, in-context": { ...dit, block: { kind: "in-context" } },
  "DiT, adaLN-zero": { ...dit, block: { kind: "adaLN-zero" } },
  MMDiT: mmdit,
  "U-ViT": uViT,
  "U-ViT of the other options": { ...uViT, timeMlp: true, qkvBias: true, finalConv: false },
  "U-Net": uNet,
  // With as many groups as channels a norm would take away what time and condition add.
  "U-Net of the other options": {
    ...uNet,
    width: 64,
    scaleShift: false,
    residualResampling: false,
  },
} as const;
const others = {
  "DiT, cross-attention": { ...dit, block: { kind: "cross-attention" } },
  "DiT, adaLN": { ...dit, block: { kind: "adaLN" } },
  "DiT by the later recipe": {
    ...dit,
    patches: { kind: "bottleneck", width: 4 },
    rotary: { theta: 10_000 },
    norm: { kind: "rms", affine: true, epsilon: 1e-6 },
    feedForward: { kind: "swiglu" },
    qkNorm: { kind: "rms", affine: true, epsilon: 1e-6 },
  },
} as const;

describe("eight images are memorized", () => {
  const y = ndarray("int64", [IMAGES], [...new Array(IMAGES).keys()]);
  it.each(Object.entries({ ...networks, ...others }))(
    "from their classes: %s",
    async (_, network) => {
      expect(await overfit({ ...network, condition: byClass }, { y })).toBeLessThan(1e-3);
    },
  );

  const told = {
    y: randomArray(4, "float32", [IMAGES, 3, 6]),
    mask: ndarray(
      "bool",
      [IMAGES, 3],
      Array.from({ length: IMAGES * 3 }, (_, i) => (i % 3 < 2 ? 1 : 0)),
    ),
  };
  const byCross = { ...dit, block: { kind: "adaLN-zero", text: "cross-attention" } } as const;
  it.each(Object.entries({ ...networks, "DiT, text by cross-attention": byCross }))(
    "from a text: %s",
    async (_, network) => {
      expect(await overfit({ ...network, condition: byText }, told)).toBeLessThan(1e-3);
    },
  );

  it("from text tokens alone if all pooled embeddings are equal", async () => {
    const condition = { ...byText, pooled: 5 } as const;
    const { y: context } = told;
    const pooled = ndarray("float32", [IMAGES, 5], new Array(IMAGES * 5).fill(1));
    expect(await overfit({ ...mmdit, condition }, { context, pooled })).toBeLessThan(1e-3);
  });
});
