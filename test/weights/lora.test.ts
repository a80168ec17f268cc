import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { type NdArray, ndarray, sizeOf, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { type NetworkConfig, networkSchema } from "../../src/models/network.ts";
import { fluxPresets } from "../../src/models/flux/config.ts";
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
  const one = { down: matrix(1, 2, 6), up: matrix(2, 8, 2) };

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
    expect(parts[0]!.delta).toMatchObject({ outputs: 8, inputs: 16 });
    const sum = new Float64Array(16);
    parts[0]!.delta.add(sum, 3, 1);
    for (const [j, value] of sum.entries()) {
      const [u, d] = [toNumbers(up), toNumbers(down)];
      expect(value).toBeCloseTo(u[6]! * d[j]! + u[7]! * d[16 + j]!, 12);
    }
  });

  describe("in the forms of LyCORIS", () => {
    const name = "lycoris_context_embedder";
    const to = (entries: Record<string, NdArray>) =>
      Object.fromEntries(Object.entries(entries).map(([key, array]) => [`${name}.${key}`, array]));
    const times = (a: NdArray, b: NdArray) => {
      const [rows, inner, columns] = [a.shape[0]!, a.shape[1]!, b.shape[1]!];
      const [x, y] = [toNumbers(a), toNumbers(b)];
      return Array.from({ length: rows * columns }, (_, i) => {
        const [row, column] = [Math.floor(i / columns), i % columns];
        return Array.from({ length: inner }).reduce<number>(
          (sum, _each, k) => sum + x[row * inner + k]! * y[k * columns + column]!,
          0,
        );
      });
    };
    /** [4, 2] ⊗ [2, 3] → [8, 6] */
    const kron = (a: readonly number[], b: readonly number[], scale: number) =>
      Array.from({ length: 48 }, (_, i) => {
        const [row, column] = [Math.floor(i / 6), i % 6];
        const left = a[2 * Math.floor(row / 2) + Math.floor(column / 3)]!;
        return scale * left * b[3 * (row % 2) + (column % 3)]!;
      });
    const near = (values: readonly number[]) => values.map((value) => expect.closeTo(value, 6));
    const alpha = ndarray("float32", [], [3]);

    it("can be a Kronecker product, whose alpha counts where a factor has a rank", async () => {
      const [w1, w2] = [matrix(1, 4, 2), matrix(2, 2, 3)];
      const [a1, b1] = [matrix(3, 4, 2), matrix(4, 2, 2)];
      const [a2, b2] = [matrix(5, 2, 2), matrix(6, 2, 3)];
      const whole = await added(to({ lokr_w1: w1, lokr_w2: w2, alpha }));
      expect(whole["context_embedder"]).toEqual(near(kron(toNumbers(w1), toNumbers(w2), 1)));
      const half = await added(to({ lokr_w1: w1, lokr_w2_a: a2, lokr_w2_b: b2, alpha }));
      expect(half["context_embedder"]).toEqual(near(kron(toNumbers(w1), times(a2, b2), 1.5)));
      const both = await added(
        to({ lokr_w1_a: a1, lokr_w1_b: b1, lokr_w2_a: a2, lokr_w2_b: b2, alpha }),
      );
      expect(both["context_embedder"]).toEqual(near(kron(times(a1, b1), times(a2, b2), 1.5)));
      const peft = await added(
        to({ lokr_w1: w1, lokr_w2: w2 }),
        settings({ peft_type: "LOKR", r: 4, alpha: 8 }),
      );
      expect(peft["context_embedder"]).toEqual(near(kron(toNumbers(w1), toNumbers(w2), 2)));
    });

    it("can be a product of the elements of two LoRAs", async () => {
      const [a1, b1, a2, b2] = [matrix(1, 8, 2), matrix(2, 2, 6), matrix(3, 8, 2), matrix(4, 2, 6)];
      const tensors = { hada_w1_a: a1, hada_w1_b: b1, hada_w2_a: a2, hada_w2_b: b2, alpha };
      const other = times(a2, b2);
      const wanted = times(a1, b1).map((value, i) => 1.5 * value * other[i]!);
      expect((await added(to(tensors)))["context_embedder"]).toEqual(near(wanted));
    });

    it("can be a whole difference, also of a bias", async () => {
      const [weight, bias] = [matrix(1, 8, 6), matrix(2, 8)];
      const { parts } = await read(to({ diff: weight, diff_b: bias, alpha }));
      expect(parts.map(({ layer, parameter }) => [layer, parameter])).toEqual([
        ["context_embedder", "weight"],
        ["context_embedder", "bias"],
      ]);
      const [base, zeros] = [new Float32Array(48), new Float32Array(8)];
      const [first, second] = parts.map((part) => [{ ...part, weight: 2 }]);
      const merged = mergeLora(ndarray("float32", [8, 6], base), first!);
      expect(toNumbers(merged)).toEqual(toNumbers(weight).map((value) => 2 * value));
      const moved = mergeLora(ndarray("float32", [8], zeros), second!);
      expect(toNumbers(moved)).toEqual(toNumbers(bias).map((value) => 2 * value));
    });

    it.each<[string, Record<string, NdArray>, RegExp]>([
      [
        "half a product",
        { lokr_w1: matrix(1, 4, 2) },
        /holds only "lycoris_context_embedder\.lokr_w1"/,
      ],
      [
        "two forms of one layer",
        { diff: matrix(1, 8, 6), lokr_w1: matrix(1, 4, 2) },
        /from which no update can be computed/,
      ],
      [
        "another size",
        { lokr_w1: matrix(1, 4, 2), lokr_w2: matrix(1, 2, 2) },
        /the update of "lycoris_context_embedder" is \[8, 4\], but must be \[8, 6\]/,
      ],
      [
        "factors of different ranks",
        { lokr_w1: matrix(1, 4, 2), lokr_w2_a: matrix(1, 2, 2), lokr_w2_b: matrix(1, 3, 3) },
        /matrices of \[2, 2\] and \[3, 3\] have no product/,
      ],
      [
        "OFT",
        { oft_blocks: matrix(1, 8, 6) },
        /"lycoris_context_embedder\.oft_blocks", which is of OFT/,
      ],
      [
        "a bias of another size",
        { diff_b: matrix(1, 7), diff: matrix(1, 8, 6) },
        /is \[7\], but must be \[8\]/,
      ],
    ])("is refused for %s", async (_, tensors, sentence) => {
      await expect(read(to(tensors))).rejects.toThrow(FormatError);
      await expect(read(to(tensors))).rejects.toThrow(sentence);
    });
  });

  it.each([[NaN], [Infinity]])("is refused where a number is %s", async (value) => {
    const down = ndarray("float32", [2, 6], new Float32Array(12).fill(value));
    const reading = read({
      "context_embedder.lora_A.weight": down,
      "context_embedder.lora_B.weight": one.up,
    });
    await expect(reading).rejects.toThrow(`"context_embedder.lora_A.weight" holds ${value}`);
  });

  it("has the alpha of metadata, and of the first pattern that matches a name", async () => {
    const plain = named(comfy, ["lora_A", "lora_B"]);
    const once = await added(plain);
    const fourfold = await added(plain, { lora_alpha: String(4 * rank) });
    const factors = async (content: object) => {
      const got = await added(plain, settings(content));
      return layers.map(([layer]) => got[layer]![0]! / once[layer]![0]!);
    };
    for (const [layer, values] of Object.entries(once)) {
      expect(fourfold[layer]).toEqual(values.map((value) => 4 * value));
    }
    const alpha_pattern = {
      "joint_blocks\\.\\d+\\.x_block\\.attn2?\\.qkv": 2 * rank,
      "attn.qkv": 8 * rank,
      "^context_embedder": 4 * rank,
      "qkv.": 3 * rank,
    };
    const wanted = layers.map(([layer]) =>
      layer === "context_embedder"
        ? 4
        : /x_block\.attn2?\.qkv/.test(layer)
          ? 2
          : /attn\.qkv/.test(layer)
            ? 8
            : 1,
    );
    const got = await factors({ lora_alpha: rank, alpha_pattern });
    for (const [i, factor] of wanted.entries()) expect(got[i]).toBeCloseTo(factor, 5);
  });

  it.each([
    [
      { alpha_pattern: { "(a+)+": 1 } },
      /"\(a\+\)\+" of a LoRA's settings is no regular expression that can be/,
    ],
    [{ alpha_pattern: { "(": 1 } }, /"\(" of a LoRA's settings/],
    [{ init_lora_weights: "pissa" }, /"init_lora_weights" = "pissa", but only/],
    [
      { peft_type: "VERA" },
      /"peft_type" = "VERA", but only "LORA", "LOHA", "LOKR", null can be merged/,
    ],
  ])("is refused for the settings %j", async (content, sentence) => {
    const reading = read(named(comfy, ["lora_A", "lora_B"]), settings(content));
    await expect(reading).rejects.toThrow(FormatError);
    await expect(reading).rejects.toThrow(sentence);
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
      /"context_embedder\.dora_scale", which is of DoRA and cannot be merged/,
    ],
    [
      "the names of XLabs",
      {
        "double_blocks.0.processor.qkv_lora1.down.weight": one.down,
        "double_blocks.0.processor.qkv_lora1.up.weight": one.up,
      },
      /qkv_lora1\.down\.weight", which is of XLabs' form of LoRA and cannot be merged/,
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

it("the layers of a parallel block of FLUX.1 have the names of diffusers for parts of one", () => {
  const small = { hidden: 128, heads: 1, depth: 1, singleDepth: 1 };
  const parallel = layerNames({ kind: "flux", ...fluxPresets["FLUX.1-schnell"], ...small });
  const block = parallel.filter(({ layer }) => layer === "single_blocks.0.linear1");
  expect(block.map(({ name, rows }) => [name, rows])).toEqual([
    ["single_blocks.0.linear1", undefined],
    ["single_transformer_blocks.0.linear1", undefined],
    ["single_transformer_blocks.0.attn.to_q", [[0, 128]]],
    ["single_transformer_blocks.0.attn.to_k", [[128, 256]]],
    ["single_transformer_blocks.0.attn.to_v", [[256, 384]]],
    ["single_transformer_blocks.0.proj_mlp", [[384, 896]]],
  ]);
});
