import { describe, expect, it } from "vitest";
import { ndarray, toNumbers } from "../../src/engine/ndarray.ts";
import { input } from "../../src/engine/functional.ts";
import { randomKey } from "../../src/engine/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch } from "../../src/engine/shape.ts";
import { type BlockDesign, type DiTConfig, ditPresets, traceDiT } from "../../src/models/dit.ts";
import { initialize } from "../../src/nn/params.ts";
import { adamW } from "../../src/training/adamw.ts";
import { createTrainer, trainingStep } from "../../src/training/step.ts";
import { randomArray } from "../support/arrays.ts";

const IMAGES = 8;
const STEPS = 250;

const tiny: DiTConfig = {
  ...ditPresets["DiT-S/2"],
  size: [4, 4],
  channels: 1,
  learnedVariance: false,
  hidden: 32,
  depth: 2,
  heads: 2,
  condition: { kind: "class", classes: IMAGES, nullClass: false },
};

// All eight begin at the same noise and the same time: only the condition says which image is wanted.
const noise = toNumbers(randomArray(1, "float32", [16]));
const images = randomArray(2, "float32", [IMAGES, 1, 4, 4], -1, 1);
const inputs = {
  x: ndarray("float32", [IMAGES, 1, 4, 4], new Array(IMAGES).fill(noise).flat()),
  t: ndarray("float32", [IMAGES], new Array(IMAGES).fill(500)),
  images,
};
const labels = ndarray("int64", [IMAGES], [...new Array(IMAGES).keys()]);

/** Loss of the last step. */
async function overfit(config: DiTConfig, condition: object): Promise<number> {
  const { params, output } = traceDiT(config);
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
  it.each<BlockDesign>([
    { kind: "in-context" },
    { kind: "cross-attention" },
    { kind: "adaLN" },
    { kind: "adaLN-zero" },
  ])("from their classes, by $kind blocks", async (block) => {
    expect(await overfit({ ...tiny, block }, { y: labels })).toBeLessThan(1e-3);
  });

  it.each<BlockDesign>([
    { kind: "in-context" },
    { kind: "adaLN-zero" },
    { kind: "adaLN-zero", text: "cross-attention" },
  ])("from a text, by $kind blocks ($text)", async (block) => {
    const condition = { kind: "text", width: 6, length: 3 } as const;
    const y = randomArray(4, "float32", [IMAGES, 3, 6]);
    const mask = ndarray(
      "bool",
      [IMAGES, 3],
      Array.from({ length: IMAGES * 3 }, (_, i) => (i % 3 < 2 ? 1 : 0)),
    );
    expect(await overfit({ ...tiny, block, condition }, { y, mask })).toBeLessThan(1e-3);
  });

  it("by the later recipe", async () => {
    const recipe: DiTConfig = {
      ...tiny,
      patches: { kind: "bottleneck", width: 4 },
      rotary: { theta: 10_000 },
      norm: { kind: "rms", affine: true, epsilon: 1e-6 },
      feedForward: { kind: "swiglu" },
      qkNorm: { kind: "rms", affine: true, epsilon: 1e-6 },
    };
    expect(await overfit(recipe, { y: labels })).toBeLessThan(1e-3);
  });
});
