import { describe, expect, it } from "vitest";
import { input } from "../../src/engine/functional.ts";
import { ndarray, toNumbers } from "../../src/engine/ndarray.ts";
import { randomKey } from "../../src/engine/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch } from "../../src/engine/shape.ts";
import { traceNetwork } from "../../src/models/index.ts";
import { type MMDiTConfig, mmditPresets } from "../../src/models/mmdit.ts";
import { initialize } from "../../src/nn/params.ts";
import { adamW } from "../../src/training/adamw.ts";
import { createTrainer, trainingStep } from "../../src/training/step.ts";
import { randomArray } from "../support/arrays.ts";

const IMAGES = 8;
const STEPS = 250;

const tiny: Omit<MMDiTConfig, "condition"> = {
  ...mmditPresets["SD3-medium"],
  size: [4, 4],
  channels: 1,
  hidden: 32,
  depth: 2,
  heads: 2,
  positions: { kind: "sin-cos", max: 2 },
  qkNorm: { kind: "rms", affine: true, epsilon: 1e-6 },
  dualAttention: [0],
};

// All eight begin at the same noise and the same time: only the condition says which image is wanted.
const noise = toNumbers(randomArray(1, "float32", [16]));
const inputs = {
  x: ndarray("float32", [IMAGES, 1, 4, 4], new Array(IMAGES).fill(noise).flat()),
  t: ndarray("float32", [IMAGES], new Array(IMAGES).fill(500)),
  images: randomArray(2, "float32", [IMAGES, 1, 4, 4], -1, 1),
};

/** Loss of the last step. */
async function overfit(config: MMDiTConfig, condition: object): Promise<number> {
  const { params, output } = traceNetwork({ kind: "mmdit", ...config });
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

describe("eight images are learned by heart", () => {
  it("from their classes", async () => {
    const condition = { kind: "class", classes: IMAGES, nullClass: false } as const;
    const y = ndarray("int64", [IMAGES], [...new Array(IMAGES).keys()]);
    expect(await overfit({ ...tiny, condition }, { y })).toBeLessThan(1e-3);
  });

  it("from a text", async () => {
    const condition = { kind: "text", width: 6, length: 3 } as const;
    const y = randomArray(4, "float32", [IMAGES, 3, 6]);
    const shown = Array.from({ length: IMAGES * 3 }, (_, i) => (i % 3 < 2 ? 1 : 0));
    const mask = ndarray("bool", [IMAGES, 3], shown);
    expect(await overfit({ ...tiny, condition }, { y, mask })).toBeLessThan(1e-3);
  });

  it("from the tokens of a text alone, where encoders pool them all alike", async () => {
    const condition = { kind: "text", width: 6, length: 3, pooled: 5 } as const;
    const context = randomArray(4, "float32", [IMAGES, 3, 6]);
    const pooled = ndarray("float32", [IMAGES, 5], new Array(IMAGES * 5).fill(1));
    expect(await overfit({ ...tiny, condition }, { context, pooled })).toBeLessThan(1e-3);
  });
});
