import { describe, expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import { parameter } from "../../src/engine/graph/functional.ts";
import { type TrainingConfig, trainingConfigSchema } from "../../src/training/config/config.ts";
import { configuredOptimizer } from "../../src/training/optimizers.ts";
import { networkOf } from "../../src/training/config/network.ts";

const picture = { height: 64, width: 32, channels: 3 };
const captioned = { name: "pictures", classes: undefined, captioned: true };
const classed = { name: "digits", classes: ["0", "1", "2"], captioned: false };
const words = { vocabulary: 10, width: 8 };

/** The model of a config, with what it leaves out. */
const model = (settings: object): TrainingConfig["model"] =>
  trainingConfigSchema().parse({
    data: { kind: "idx" },
    picture: { size: 64 },
    model: settings,
    training: { steps: 1 },
  }).model;

describe("the network of a training config", () => {
  it("is a DiT by default", () => {
    const network = networkOf(model({}), picture, classed, undefined);
    expect(network).toMatchObject({
      kind: "dit",
      size: [64, 32],
      hidden: 192,
      condition: { kind: "class", classes: 3, nullClass: true },
    });
  });

  it("has the kind of attention that is chosen", () => {
    const attention = { kind: "window", size: 4 };
    for (const kind of ["dit", "mmdit", "u-vit"]) {
      const settings = model({ kind, patch: 8, attention });
      expect(networkOf(settings, picture, classed, undefined)).toMatchObject({ kind, attention });
    }
    expect(() =>
      networkOf(
        model({ patch: 8, attention: { kind: "window", size: 5 } }),
        picture,
        classed,
        undefined,
      ),
    ).toThrow(
      "windows of 5 patches do not divide the 8×4 patches of the picture; choose 2 or 4, or another patch",
    );
  });

  it("is an MMDiT on the text of a prompt encoder", () => {
    const settings = model({ kind: "mmdit", patch: 8, hidden: 128, dualAttention: [0] });
    const network = networkOf(settings, picture, captioned, words);
    expect(network).toMatchObject({
      kind: "mmdit",
      patch: 8,
      hidden: 128,
      heads: 2,
      positions: { kind: "sin-cos", max: 16 },
      dualAttention: [0],
      condition: { kind: "text", width: 128, length: 16 },
      prompt: { vocabulary: 10, wordWidth: 8, width: 128, length: 16 },
    });
    expect(network.condition).not.toHaveProperty("pooled");
  });

  it("is an MMDiT on classes", () => {
    const network = networkOf(model({ kind: "mmdit" }), picture, classed, undefined);
    expect(network.condition).toEqual({ kind: "class", classes: 3, nullClass: true });
    expect(network.prompt).toBeUndefined();
  });

  it("has a published size, but its own positions", () => {
    const settings = model({ kind: "mmdit", preset: "SD3.5-medium", depth: 14 });
    const network = networkOf(settings, picture, classed, undefined);
    expect(network).toMatchObject({
      hidden: 1536,
      depth: 14,
      positions: { kind: "sin-cos", max: 384 },
    });
  });

  it.each([
    [96, 2],
    [160, 2],
    [192, 3],
    [200, 2],
    [352, 4],
    [1024, 16],
  ])("of width %i has %i heads, which suit rotary positions", (hidden, heads) => {
    expect(networkOf(model({ hidden }), picture, classed, undefined)).toMatchObject({ heads });
  });

  it("refuses sides that only patches of a pixel divide", () => {
    const prime = { ...picture, height: 61, width: 61 };
    expect(() => networkOf(model({}), prime, classed, undefined)).toThrow(
      "61×61 can only be cut into 3,721 patches of 1×1, which takes too long to train on; set picture.size so that it is 64×64, or set model.patch.",
    );
    expect(networkOf(model({ patch: 1 }), prime, classed, undefined)).toMatchObject({ patch: 1 });
  });

  it("refuses an MMDiT without a condition, or with sizes that do not fit", () => {
    const plain = { name: "noise", classes: undefined, captioned: false };
    const build = (settings: object) => () =>
      networkOf(model({ kind: "mmdit", ...settings }), picture, { ...plain }, undefined);
    expect(build({})).toThrow(UsageError);
    expect(build({})).toThrow(
      "An MMDiT needs a text or a class as its condition, but noise has neither",
    );
    const few = { positions: { kind: "sin-cos", max: 4 }, patch: 8 };
    expect(() => networkOf(model({ kind: "mmdit", ...few }), picture, classed, undefined)).toThrow(
      "The model (positions): positions for 4×4 patches of 8×8 do not cover",
    );
    expect(() => model({ kind: "mmdit", positions: { kind: "stored", max: 4 } })).toThrow(
      "sin-cos",
    );
    expect(() => model({ kind: "mmdit", preset: "DiT-S/2" })).toThrow("SD3-medium");
  });
});

it("Muon updates the matrices of an MMDiT's blocks, and AdamW the other weights", () => {
  const { training } = trainingConfigSchema().parse({
    data: { kind: "idx" },
    picture: { size: 64 },
    training: { steps: 1, optimizer: { kind: "muon" } },
  });
  const names = [
    "joint_blocks.0.x_block.attn.qkv.weight",
    "joint_blocks.0.context_block.mlp.fc1.weight",
    "prompt_encoder.blocks.1.attn.proj.weight",
    "joint_blocks.0.x_block.adaLN_modulation.1.weight",
    "context_embedder.weight",
  ];
  const params = Object.fromEntries(names.map((name) => [name, parameter(name, [6, 6])]));
  const state = Object.keys(configuredOptimizer(training.optimizer).init(params));
  expect(state.filter((name) => name.startsWith("momentum."))).toEqual(
    names.slice(0, 3).map((name) => `momentum.${name}`),
  );
});
