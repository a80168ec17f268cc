import { describe, expect, it } from "vitest";
import { familyOf } from "../../src/models/families.ts";
import { networkPresets, traceNetwork } from "../../src/models/network.ts";
import { publishedModel } from "../../src/pipelines/open/published-checkpoint.ts";
import { publishedShapes, shapedWeights } from "../support/shaped-weights.ts";

/** Names and shapes of a preset's weights. */
function shapesOf(name: string): Record<string, readonly number[]> {
  const { params } = traceNetwork(networkPresets().get(name)!);
  return Object.fromEntries(
    [...params.declared].map(([key, { tensor }]) => [key, tensor.shape as readonly number[]]),
  );
}

describe("a file of original weights", () => {
  it.each([
    ["U-ViT-H/2-256", "U-ViT-H-2-imagenet256"],
    ["U-ViT-M/4-64", "U-ViT-M-4-imagenet64"],
    ["U-ViT-S/2-COCO", "U-ViT-S-2-mscoco"],
  ])("is recognised as %s", (name, file) => {
    const { network, defaults, missingParts } = publishedModel(
      shapedWeights(publishedShapes(file)),
    );
    expect(network).toEqual(networkPresets().get(name));
    expect(defaults).toEqual({ steps: 50, guidance: 1.4 });
    expect(missingParts?.includes("takes captions as CLIP's embeddings")).toBe(
      name.endsWith("COCO") ? true : undefined,
    );
  });

  it.each(["DDPM-CIFAR10", "ADM-64", "ADM-256"])("is recognised as %s", (name) => {
    const weights = shapedWeights(shapesOf(name));
    const { network, process } = publishedModel(weights);
    expect(network).toEqual(networkPresets().get(name));
    const { recipe } = familyOf(network).original!.open(weights, () => network);
    expect(recipe).toMatchObject({ process: "discrete", predicts: "epsilon" });
    // Half-way the cosine schedule has kept more of the picture than the linear one.
    const kept = process.levels(3, { size: network.size }).map(({ alpha }) => alpha)[1]!;
    expect(kept > 0.5).toBe(name === "ADM-64");
  });

  it("is recognised as a DiT", () => {
    const { network } = publishedModel(shapedWeights(publishedShapes("DiT-XL-2-256")));
    expect(network).toEqual(networkPresets().get("DiT-XL/2"));
  });

  it("whose heads show in no shape is opened with a warning, or with the heads that are given", () => {
    const shapes = shapesOf("DiT-S/2");
    const shallow = Object.fromEntries(
      Object.entries(shapes).filter(([key]) => !/^blocks\.(\d\d|[2-9])\./.test(key)),
    );
    expect(publishedModel(shapedWeights(shapes)).warnings).toBeUndefined();
    const guessed = publishedModel(shapedWeights(shallow));
    expect(guessed.network).toMatchObject({ depth: 2, heads: 6 });
    expect(guessed.warnings).toEqual([
      "No shape of this DiT shows its number of heads, for which 6 is taken; if it was trained with others, give --heads (heads).",
    ]);
    const given = publishedModel(shapedWeights(shallow), 12);
    expect(given.network).toMatchObject({ heads: 12 });
    expect(given.warnings).toBeUndefined();
    expect(() => publishedModel(shapedWeights(shallow), 7)).toThrow(
      "7 heads (heads) do not divide",
    );
    const other = shapedWeights(publishedShapes("U-ViT-M-4-imagenet64"));
    expect(() => publishedModel(other, 3)).toThrow("--heads (heads) does not apply");
  });

  it.each([
    ["Sana", "Sana-1.6B", /^transformer_blocks\.([2-9]|\d\d)\./, 70],
    ["Wan", "Wan2.1-T2V-1.3B", /^blocks\.([2-9]|\d\d)\./, 12],
  ])(
    "of another %s than is published is opened with such a warning",
    (title, name, deeper, heads) => {
      const shapes = publishedShapes(name);
      const shallow = Object.entries(shapes).filter(([key]) => !deeper.test(key));
      expect(publishedModel(shapedWeights(shapes)).warnings).toBeUndefined();
      const weights = shapedWeights(Object.fromEntries(shallow));
      expect(publishedModel(weights).warnings).toEqual([
        `No shape of this ${title} shows its number of heads, for which ${heads} is taken; if it was trained with others, give --heads (heads).`,
      ]);
      expect(publishedModel(weights, heads / 2).warnings).toBeUndefined();
    },
  );

  it("under diffusers' names is asked for as a folder", () => {
    const shapes = { "transformer_blocks.0.norm1.linear.weight": [8, 8] };
    expect(() => publishedModel(shapedWeights(shapes))).toThrow(
      "holds a network under the names of diffusers",
    );
  });

  it.each([
    ["diffusers", "layers.0.attention.to_q.lora_A.weight"],
    ["kohya", "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"],
    ["LyCORIS", "lycoris_layers_0_attention_to_q.lokr_w1"],
  ])("is no LoRA, which is asked for as one: the names of %s", (_, name) => {
    expect(() => publishedModel(shapedWeights({ [name]: [4, 8] }))).toThrow(
      "holds a LoRA, which changes how a model draws; give it as --lora (loras), and the model",
    );
  });

  it.each(["Paella-v1", "Paella-v3"])("is refused for %s, with the alternatives", (name) => {
    expect(() => publishedModel(shapedWeights(publishedShapes(name)))).toThrow(
      "file is a Paella, which takes embeddings of ByT5 or CLIP and draws codes of a VQGAN, neither of which is in the file",
    );
  });

  it("is refused if it is of no published size", () => {
    const shapes = { ...shapesOf("U-ViT-M/4-64"), pos_embed: [1, 3, 768] };
    expect(() => publishedModel(shapedWeights(shapes))).toThrow(
      "file is a U-ViT, but of none of the published sizes, which are U-ViT-S/2-CIFAR10, ",
    );
  });
});
