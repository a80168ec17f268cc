import { describe, expect, it } from "vitest";
import { ndarray, type NdArray } from "../../src/engine/arrays/ndarray.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { normal, randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../../src/engine/runtime/stored-weight.ts";
import { featureMaps, traceExtractor } from "../../src/evaluation/extractor.ts";
import { createParams, initialize } from "../../src/nn/params.ts";
import {
  type LabelledPicture,
  trainModel,
  type TrainModelOptions,
} from "../../src/training/index.ts";
import { readTrainingConfig } from "../../src/training/index-node.ts";
import { perceptualDistance } from "../../src/training/tasks/feature-losses.ts";

const backend = nodeBackend("cpu");
const SIDE = 16;
const pictures: readonly LabelledPicture[] = Array.from({ length: 4 }, (_, i) => ({
  width: SIDE,
  height: SIDE,
  channels: 1,
  pixels: Uint8Array.from({ length: SIDE * SIDE }, (__, j) => (i * 40 + j) % 256),
  label: i % 2 === 0 ? "even" : "odd",
}));
const settings = {
  backend,
  pictures,
  // 64 tokens, as many as the last map of the extractor has places.
  network: { hidden: 32, depth: 2, patch: 2, heads: 2 },
  steps: 4,
  batch: 2,
  threads: 1,
  features: { perceptual: 0.5, alignment: 0.5, block: 1 },
} as const;

const messageOf = (options: Partial<TrainModelOptions>) =>
  trainModel({ ...settings, ...options }).then(() => "trained", String);

describe("the perceptual distance", () => {
  const image = input("image", [batch, 1, SIDE, SIDE]);
  const other = input("other", [batch, 1, SIDE, SIDE]);
  const params = createParams();
  const distance = perceptualDistance(featureMaps(params, image), featureMaps(params, other));

  it("is zero for equal pictures, grows with their difference, and pulls them together", async () => {
    const [slope] = gradient(distance.sum(), [image]);
    const program = await backend.compile(graphOf({ distance, slope: slope! }), {
      weights: arrayWeights(initialize(params, randomKey(0))),
    });
    const clean = normal(randomKey(1), [1, 1, SIDE, SIDE]);
    const noise = normal(randomKey(2), [1, 1, SIDE, SIDE]);
    const plus = (by: number, direction: NdArray) =>
      ndarray(
        "float32",
        clean.shape,
        Float32Array.from(clean.data, (x, i) => x + by * Number(direction.data[i])),
      );
    const at = async (shown: NdArray) => {
      const seen = await program.run({ image: shown, other: clean });
      return { distance: Number(seen["distance"]!.data[0]), slope: seen["slope"]! };
    };
    const [same, near, far] = [
      await at(clean),
      await at(plus(0.1, noise)),
      await at(plus(1, noise)),
    ];
    expect(same.distance).toBe(0);
    expect(near.distance).toBeGreaterThan(0);
    expect(far.distance).toBeGreaterThan(2 * near.distance);
    const stepped = ndarray(
      "float32",
      clean.shape,
      Float32Array.from(
        far.slope.data as Float32Array,
        (d, i) => Number(clean.data[i]) + Number(noise.data[i]) - d,
      ),
    );
    expect((await at(stepped)).distance).toBeLessThan(far.distance);
    await program.dispose();
  });
});

describe("a training with losses on features", () => {
  it("learns a projection that is not part of the model, and resumes bit for bit", async () => {
    const whole = await trainModel(settings);
    const plain = await trainModel({ ...settings, features: undefined });
    expect(Object.keys(whole.weights)).toEqual(Object.keys(plain.weights));
    expect(whole.weights).not.toEqual(plain.weights);
    expect(Object.keys(whole.checkpoint.state).some((key) => key.includes("alignment.conv"))).toBe(
      true,
    );
    const controller = new AbortController();
    const stopped = await trainModel({
      ...settings,
      signal: controller.signal,
      onEvent: (event) => event.kind === "step" && event.step === 2 && controller.abort(),
    });
    const resumed = await trainModel({ ...settings, resumeFrom: stopped.checkpoint });
    expect(resumed.weights).toEqual(whole.weights);
  });

  it("takes the weights of a trained extractor", async () => {
    const shape = { width: SIDE, height: SIDE, channels: 1 } as const;
    const { params } = traceExtractor({ shape, classes: 2 });
    const extractor = initialize(params, randomKey(5));
    const own = await trainModel({ ...settings, extractor });
    const random = await trainModel(settings);
    expect(own.weights).not.toEqual(random.weights);
    const colour = initialize(
      traceExtractor({ shape: { ...shape, channels: 3 }, classes: undefined }).params,
      randomKey(5),
    );
    expect(await messageOf({ extractor: colour })).toBe(
      "UsageError: The extractor's conv_in.conv.weight is [32, 3, 3, 3], but the pictures need [32, 1, 3, 3]; give the extractor of a comparison on pictures with as many channels.",
    );
  });

  it("is refused where it cannot work", async () => {
    expect(await messageOf({ features: {} })).toMatch(/without a weight it has no effect/);
    expect(await messageOf({ features: { alignment: 1, block: 7 } })).toMatch(/blocks\.7\.output/);
    expect(
      await messageOf({
        features: { alignment: 1, block: 0 },
        network: { ...settings.network, patch: 8 },
      }),
    ).toMatch(/compares 4 tokens of a block with maps of 256, 64 places/);
    expect(await messageOf({ features: { perceptual: 1, extractor: "a.safetensors" } })).toMatch(
      /which trainModel does not read; pass its weights as the option extractor/,
    );
    const lora =
      "base: emoji\nlora: {}\ndata: { folder: x }\ntraining: { steps: 1, features: { perceptual: 1 } }";
    expect(() => readTrainingConfig("lora.yaml", lora)).toThrow(/features/);
  });
});
