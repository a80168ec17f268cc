import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { type NdArray, ndarray, sizeOf, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { type NetworkConfig, networkSchema } from "../../src/models/network.ts";
import { layerNames, publishedNames } from "../../src/training/tasks/lora-layers.ts";
import { bytesSource, openSafetensors, safetensorsBytes } from "../../src/weights/index.ts";
import { loraFile, mergeLora, readLora } from "../../src/weights/lora.ts";
import { randomArray } from "../support/arrays.ts";
import { tinyNetwork } from "../support/tiny-model.ts";

const mmdit = networkSchema().parse({
  kind: "mmdit",
  size: [4, 4],
  channels: 4,
  patch: 2,
  hidden: 8,
  depth: 2,
  heads: 2,
  mlpRatio: 4,
  learnedVariance: false,
  condition: { kind: "text", width: 6, length: 5, pooled: 7 },
  patches: { kind: "linear" },
  positions: { kind: "sin-cos", max: 4 },
  norm: { kind: "layer", affine: false },
  feedForward: { kind: "gelu", approximate: "tanh" },
  qkNorm: null,
  qkvBias: true,
  dualAttention: [0],
});
const names = layerNames(mmdit);
type Arrays = Record<string, NdArray>;

const open = (tensors: Arrays, metadata: Record<string, string> = {}) =>
  openSafetensors(
    bytesSource(safetensorsBytes(Object.entries(tensors), Object.entries(metadata)), "it"),
  );
const read = async (tensors: Arrays, metadata: Record<string, string> = {}) =>
  readLora(await open(tensors, metadata), names, "the model");
const matrix = (seed: number, ...shape: number[]) =>
  randomArray(seed, "float32", shape) as NdArray<"float32">;

/** What files add to each layer's weight. */
async function added(tensors: Arrays, metadata: Record<string, string> = {}) {
  const { parts } = await read(tensors, metadata);
  return Object.fromEntries(
    [...new Set(parts.map(({ layer }) => layer))].toSorted().map((layer) => {
      const { shape } = names.find((each) => each.name === layer)!;
      const nothing = ndarray("float32", shape, new Float32Array(sizeOf(shape)));
      const own = parts.filter((part) => part.layer === layer);
      return [
        layer,
        toNumbers(
          mergeLora(
            nothing,
            own.map((part) => ({ ...part, weight: 1 })),
          ),
        ),
      ];
    }),
  );
}

/** One LoRA of every kind of layer, in the original's own terms. */
const rank = 2;
const layers = [
  ["joint_blocks.0.x_block.attn.qkv", 24, 8],
  ["joint_blocks.0.x_block.attn2.qkv", 24, 8],
  ["joint_blocks.1.context_block.attn.qkv", 24, 8],
  ["joint_blocks.0.context_block.attn.proj", 8, 8],
  ["joint_blocks.0.x_block.attn.proj", 8, 8],
  ["joint_blocks.1.x_block.mlp.fc1", 32, 8],
  ["joint_blocks.0.context_block.mlp.fc2", 8, 32],
  ["joint_blocks.1.x_block.adaLN_modulation.1", 48, 8],
  ["joint_blocks.1.context_block.adaLN_modulation.1", 16, 8],
  ["final_layer.adaLN_modulation.1", 16, 8],
  ["context_embedder", 8, 6],
  ["t_embedder.mlp.0", 8, 256],
] as const;
const matrices = layers.map(([layer, outputs, inputs], i) => ({
  layer,
  down: matrix(2 * i, rank, inputs),
  up: matrix(2 * i + 1, outputs, rank),
}));

const rowsOf = ({ shape, data }: NdArray<"float32">, from: number, to: number) => {
  const width = shape[1]!;
  return ndarray("float32", [to - from, width], data.slice(from * width, to * width));
};
function swapped(array: NdArray<"float32">): NdArray<"float32"> {
  const half = array.data.length / 2;
  return ndarray("float32", array.shape, [...array.data.slice(half), ...array.data.slice(0, half)]);
}

/** Under diffusers' names, which were written down from its conversion of Stable Diffusion 3. */
function asDiffusers(): Arrays {
  const t = "transformer.transformer_blocks";
  const at = (i: number) => matrices[i]!;
  const split = (i: number, [q, k, v]: readonly string[]) =>
    [q, k, v].flatMap((name, part) => [
      [`${name}.lora_A.weight`, at(i).down] as const,
      [`${name}.lora_B.weight`, rowsOf(at(i).up, 8 * part, 8 * part + 8)] as const,
    ]);
  const whole = (i: number, name: string, change = (up: NdArray<"float32">) => up) => [
    [`${name}.lora_A.weight`, at(i).down] as const,
    [`${name}.lora_B.weight`, change(at(i).up)] as const,
  ];
  return Object.fromEntries([
    ...split(
      0,
      ["q", "k", "v"].map((p) => `${t}.0.attn.to_${p}`),
    ),
    ...split(
      1,
      ["q", "k", "v"].map((p) => `${t}.0.attn2.to_${p}`),
    ),
    ...split(
      2,
      ["q", "k", "v"].map((p) => `${t}.1.attn.add_${p}_proj`),
    ),
    ...whole(3, `${t}.0.attn.to_add_out`),
    ...whole(4, `${t}.0.attn.to_out.0`),
    ...whole(5, `${t}.1.ff.net.0.proj`),
    ...whole(6, `${t}.0.ff_context.net.2`),
    ...whole(7, `${t}.1.norm1.linear`),
    ...whole(8, `${t}.1.norm1_context.linear`, swapped),
    ...whole(9, "transformer.norm_out.linear", swapped),
    ...whole(10, "transformer.context_embedder"),
    ...whole(11, "transformer.time_text_embed.timestep_embedder.linear_1"),
  ]);
}

const named = (name: (layer: string) => string, [down, up]: readonly [string, string]): Arrays =>
  Object.fromEntries(
    matrices.flatMap((each) => [
      [`${name(each.layer)}.${down}.weight`, each.down],
      [`${name(each.layer)}.${up}.weight`, each.up],
    ]),
  );
const withAlpha = (arrays: Arrays, alpha: number): Arrays => ({
  ...arrays,
  ...Object.fromEntries(
    Object.keys(arrays).map((key) => [
      key.replace(/\.lora_.*$/, ".alpha"),
      ndarray("float32", [], [alpha]),
    ]),
  ),
});

const kohya = (layer: string) => `lora_unet_${layer.replaceAll(".", "_")}`;
const comfy = (layer: string) => `diffusion_model.${layer}`;
const settings = (content: object) => ({ lora_adapter_metadata: JSON.stringify(content) });

describe("a LoRA in a file", () => {
  it("gives the same updates under the names of diffusers, kohya, ComfyUI, PEFT and Patchwise", async () => {
    const expected = await added(named((layer) => layer, ["lora_A", "lora_B"]));
    expect(Object.keys(expected)).toEqual(layers.map(([layer]) => layer).toSorted());
    const files = [
      asDiffusers(),
      named(kohya, ["lora_down", "lora_up"]),
      named(comfy, ["lora_A", "lora_B"]),
      named(comfy, ["lora_up", "lora_down"].toReversed() as [string, string]),
      named((layer) => `model.diffusion_model.${layer}`, ["lora.down", "lora.up"]),
      named((layer) => `base_model.model.${layer}`, ["lora_A.default", "lora_B.default"]),
      named((layer) => `lycoris_${layer.replaceAll(".", "_")}`, ["lora_down", "lora_up"]),
    ];
    for (const file of files) expect(await added(file)).toEqual(expected);
  });

  it("is scaled by alpha / rank, with alpha from a tensor, the metadata or a pattern", async () => {
    const plain = named(kohya, ["lora_down", "lora_up"]);
    const twice = await added(withAlpha(plain, 2 * rank));
    const once = await added(plain);
    for (const [layer, values] of Object.entries(once)) {
      expect(twice[layer]).toEqual(values.map((value) => 2 * value));
    }
    const noted = settings({ "transformer.lora_alpha": 2 * rank, "transformer.r": rank });
    expect(await added(asDiffusers(), noted)).toEqual(twice);
    const bare = settings({ lora_alpha: 2 * rank });
    expect(await added(named(comfy, ["lora_A", "lora_B"]), bare)).toEqual(twice);
    const pattern = settings({ lora_alpha: rank, alpha_pattern: { context_embedder: 2 * rank } });
    const mixed = await added(named(comfy, ["lora_A", "lora_B"]), pattern);
    expect(mixed).toEqual({ ...once, context_embedder: twice["context_embedder"] });
    const stable = settings({ lora_alpha: rank, use_rslora: true });
    const [value] = (await added(plain, stable))["context_embedder"]!;
    expect(value! / once["context_embedder"]![0]!).toBeCloseTo(Math.SQRT2, 5);
  });

  it("can update convolutions", async () => {
    const [down, up] = [matrix(1, 2, 4, 2, 2), matrix(2, 8, 2, 1, 1)];
    const { parts } = await read({
      "lora_unet_x_embedder_proj.lora_down.weight": down,
      "lora_unet_x_embedder_proj.lora_up.weight": up,
    });
    expect(parts).toHaveLength(1);
    expect(parts[0]).toMatchObject({ down: { shape: [2, 16] }, up: { shape: [8, 2] } });
  });

  it("warns that updates for text encoders are ignored", async () => {
    const text = (module: string): Arrays => ({
      [`${module}.lora_down.weight`]: matrix(1, 2, 3),
      [`${module}.lora_up.weight`]: matrix(2, 3, 2),
    });
    const of = [
      "lora_te1_text_model_encoder_layers_0_mlp_fc1",
      "text_encoder_2.a.b",
      "lora_te_x",
      "text_encoder.c",
    ];
    const all = of.reduce((tensors, module) => ({ ...tensors, ...text(module) }), {});
    const { parts, warnings } = await read({ ...named(kohya, ["lora_down", "lora_up"]), ...all });
    expect(parts).toHaveLength(layers.length);
    expect(warnings).toEqual([
      `it also has updates for text encoders, which are ignored: "${of.toSorted().slice(0, 3).join('", "')}" and 1 more.`,
    ]);
    expect((await read(text(of[0]!))).warnings[0]).toMatch(/which are ignored: "lora_te1_\w+"\.$/);
  });

  const one = { down: matrix(1, 2, 6), up: matrix(2, 8, 2) };
  const files: readonly (readonly [string, Arrays, RegExp])[] = [
    [
      "no LoRA",
      { "a.weight": one.down },
      /it holds no LoRA: none of its tensors, such as "a\.weight"/,
    ],
    ["nothing", {}, /it holds no LoRA; give/],
    [
      "layers of another model",
      {
        "lora_unet_down_blocks_0_to_q.lora_down.weight": one.down,
        "lora_unet_down_blocks_0_to_q.lora_up.weight": one.up,
      },
      /for other layers than the model has: "lora_unet_down_blocks_0_to_q"; give a LoRA of this model/,
    ],
    [
      "half a LoRA",
      { "context_embedder.lora_A.weight": one.down },
      /only the first of the two matrices of "context_embedder"/,
    ],
    [
      "the other half",
      { "context_embedder.lora_B.weight": one.up },
      /only the second of the two matrices of "context_embedder"/,
    ],
    [
      "another width",
      {
        "context_embedder.lora_A.weight": matrix(1, 2, 5),
        "context_embedder.lora_B.weight": one.up,
      },
      /"context_embedder\.lora_A\.weight" is \[2, 5\], but must be \[rank, 6\] for context_embedder, whose weight is \[8, 6\]/,
    ],
    [
      "another rank",
      {
        "context_embedder.lora_A.weight": one.down,
        "context_embedder.lora_B.weight": matrix(1, 8, 3),
      },
      /"context_embedder\.lora_B\.weight" is \[8, 3\], but must be \[8, 2\]/,
    ],
    [
      "no rank",
      {
        "context_embedder.lora_A.weight": matrix(1, 0, 6),
        "context_embedder.lora_B.weight": matrix(1, 8, 0),
      },
      /must be \[rank, 6\]/,
    ],
    [
      "DoRA",
      {
        "context_embedder.lora_A.weight": one.down,
        "context_embedder.lora_B.weight": one.up,
        "context_embedder.dora_scale": matrix(1, 8),
      },
      /"context_embedder\.dora_scale", which is not part of a LoRA/,
    ],
    [
      "several alphas",
      {
        "context_embedder.lora_A.weight": one.down,
        "context_embedder.lora_B.weight": one.up,
        "context_embedder.alpha": matrix(1, 2),
      },
      /"context_embedder\.alpha" is \[2\], but must be one number/,
    ],
  ];
  it.each(files)("is refused for %s", async (_, tensors, sentence) => {
    await expect(read(tensors)).rejects.toThrow(FormatError);
    await expect(read(tensors)).rejects.toThrow(sentence);
  });

  it.each([["{"], ["3"], ['{"lora_alpha": "many"}'], ['{"lora_alpha": 1e999}']])(
    "is refused where its note is %s",
    async (note) => {
      const reading = read(named(comfy, ["lora_A", "lora_B"]), { lora_adapter_metadata: note });
      await expect(reading).rejects.toThrow(FormatError);
    },
  );

  it("is read or refused for any names and shapes", async () => {
    const words =
      "context_embedder lora_unet_ transformer. . _ lora_A lora_B lora_down .weight .alpha lora_te_ x_embedder.proj dora_scale é";
    const part = fc.constantFrom(...words.split(" "));
    const name = fc.array(part, { minLength: 1, maxLength: 5 }).map((parts) => parts.join(""));
    const shape = fc.array(fc.constantFrom(0, 1, 2, 6, 8), { maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(fc.dictionary(name, shape, { maxKeys: 6 }), async (shapes) => {
        const tensors = Object.entries(shapes).map(([key, sizes], i) => [key, matrix(i, ...sizes)]);
        const outcome = await read(Object.fromEntries(tensors)).then(
          ({ parts }) => parts.length >= 0,
          (error: unknown) => error instanceof FormatError,
        );
        expect(outcome).toBe(true);
      }),
      { seed: 8, numRuns: 300 },
    );
  });
});

describe("a LoRA that is saved", () => {
  const saved = (network: NetworkConfig, alpha: number) => {
    const byLayer = new Map(matrices.map(({ layer, ...each }) => [layer as string, each]));
    return loraFile(byLayer, { rank, alpha }, publishedNames(network));
  };

  it("uses diffusers' names and is the same when it is read again", async () => {
    const { tensors, metadata } = saved(mmdit, rank);
    const arrays = Object.fromEntries(tensors);
    expect(Object.keys(arrays).toSorted()).toEqual(Object.keys(asDiffusers()).toSorted());
    expect(await added(arrays, Object.fromEntries(metadata))).toEqual(
      await added(named((layer) => layer, ["lora_A", "lora_B"])),
    );
  });

  it("needs no alpha", async () => {
    const { tensors, metadata } = saved(mmdit, 2 * rank);
    const expected = await added(
      withAlpha(
        named((layer) => layer, ["lora_A", "lora_B"]),
        2 * rank,
      ),
    );
    expect(await added(Object.fromEntries(tensors), Object.fromEntries(metadata))).toEqual(
      expected,
    );
    expect(await added(Object.fromEntries(tensors))).toEqual(expected);
  });

  it("uses the original names for networks that diffusers lacks", () => {
    const own = publishedNames(tinyNetwork)("blocks.0.attn.qkv");
    expect(own).toEqual([
      { name: "blocks.0.attn.qkv", layer: "blocks.0.attn.qkv", shape: [96, 32] },
    ]);
  });
});

describe("layers of a DiT", () => {
  it("also have diffusers' names", () => {
    const dit = layerNames(tinyNetwork).filter(({ layer }) => layer === "blocks.1.attn.qkv");
    expect(dit.map(({ name, rows }) => [name, rows])).toEqual([
      ["blocks.1.attn.qkv", undefined],
      ["transformer_blocks.1.attn1.to_qkv", undefined],
      ["transformer_blocks.1.attn1.to_q", [[0, 32]]],
      ["transformer_blocks.1.attn1.to_k", [[32, 64]]],
      ["transformer_blocks.1.attn1.to_v", [[64, 96]]],
    ]);
  });
});
