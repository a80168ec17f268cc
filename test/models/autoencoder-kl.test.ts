import { readFileSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError, ShapeError } from "../../src/engine/errors.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, sizeOf, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch, resolve } from "../../src/engine/graph/shape.ts";
import { countParameters } from "../../src/engine/passes/cost.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import { autoencoderCheckpointConfig } from "../../src/models/coders/autoencoder-kl-checkpoint.ts";
import {
  autoencoderKLConfig,
  autoencoderKLPresets,
} from "../../src/models/coders/autoencoder-kl-config.ts";
import {
  autoencoderKLKeys,
  autoencoderKLParams,
  decodeLatents,
  encodeImages,
  samplePosterior,
  scaleLatents,
  tiledDecode,
  unscaleLatents,
} from "../../src/models/coders/autoencoder-kl.ts";
import { createParams, declaredTensors } from "../../src/nn/params.ts";
import { checkedWeights, checkKeys } from "../../src/weights/check-keys.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import {
  bytesSource,
  openSafetensors,
  safetensorsBytes,
  type Weights,
} from "../../src/weights/index.ts";
import { randomArray } from "../support/arrays.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const backend = nodeBackend("cpu");

type Args = Record<string, unknown>;
const configOf = (args: Args) => autoencoderKLConfig(fieldReader("config.json", args));

/** The same tensors under other names. */
async function renamed(weights: Weights, rename: (name: string) => string): Promise<Weights> {
  const tensors: [string, NdArray][] = [];
  for (const name of weights.entries.keys()) {
    tensors.push([rename(name), await weights.read(name)]);
  }
  return openSafetensors(bytesSource(safetensorsBytes(tensors), "renamed"));
}

/** Verifies a fixture whose weights bear other names. */
function verifyRenamed(folder: string, rename: (name: string) => string = (name) => name) {
  return withRecording(path.join(fixtures, folder), async (recording) => {
    const model = { ...recording.model!, weights: await renamed(recording.model!.weights, rename) };
    return verifyRecording({ ...recording, model }, async () => backend);
  });
}

describe("recordings of the original code", () => {
  it.each(["autoencoder_kl", "sd3_vae"])("%s is reproduced", async (folder) => {
    const report = await withRecording(path.join(fixtures, folder), (recording) =>
      verifyRecording(recording, async () => backend),
    );
    const names = ["moments", "mean", "logvar", "sample", "decode"].map((name) => `out.${name}`);
    expect(report.outputs.map(({ name }) => name)).toEqual(names);
    // The recording's tolerance would hide a wrong epsilon of the norms, which moves outputs by 6e-5.
    for (const { max_error: error } of report.outputs) expect(error).toBeLessThan(1e-5);
  });

  it("flux2_vae, whose latents are packed and normalised, is reproduced", async () => {
    const report = await withRecording(path.join(fixtures, "flux2_vae"), (recording) =>
      verifyRecording(recording, async () => backend),
    );
    expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
    expect(report.outputs).toHaveLength(3);
  });

  it("are reproduced from weights of older releases of diffusers", async () => {
    const report = await verifyRenamed("autoencoder_kl", (name) =>
      name
        .replace(".to_q.", ".query.")
        .replace(".to_k.", ".key.")
        .replace(".to_v.", ".value.")
        .replace(".to_out.0.", ".proj_attn."),
    );
    expect(report.ok).toBe(true);
  });

  it("are reproduced from a file of a whole Stable Diffusion", async () => {
    const report = await verifyRenamed("sd3_vae", (name) => `first_stage_model.${name}`);
    expect(report.ok).toBe(true);
  });
});

interface KeyList {
  readonly list: string;
  readonly preset: keyof typeof autoencoderKLPresets;
  readonly parameters: number;
}

const lists: readonly KeyList[] = [
  { list: "SD-VAE-diffusers", preset: "SD-VAE", parameters: 83_653_863 },
  { list: "SD-VAE-compvis", preset: "SD-VAE", parameters: 83_653_863 },
  { list: "SD3-VAE-diffusers", preset: "SD3-VAE", parameters: 83_819_683 },
  { list: "SD3-VAE-16ch", preset: "SD3-VAE", parameters: 83_819_683 },
];

const fluxLists: readonly KeyList[] = [
  { list: "FLUX.1-ae", preset: "FLUX.1-ae", parameters: 83_819_683 },
  { list: "FLUX.2-ae", preset: "FLUX.2-ae", parameters: 84_046_115 },
];
const allLists = [...lists, ...fluxLists];

/** The published checkpoint's keys and shapes, as a checkpoint that can be changed. */
function publishedKeys(list: string): Map<string, { shape: number[] }> {
  const file = path.join(fixtures, "keys", `${list}.json`);
  const shapes = JSON.parse(readFileSync(file, "utf8")) as Record<string, number[]>;
  return new Map(Object.entries(shapes).map(([key, shape]) => [key, { shape }]));
}

function check({ list, preset }: KeyList, entries: ReturnType<typeof publishedKeys>): void {
  const config = autoencoderKLPresets[preset];
  const keys = autoencoderKLKeys(entries.keys(), config);
  checkKeys(autoencoderKLParams(config), { name: list, entries }, keys);
}

describe.each(allLists)("the published keys $list", (published) => {
  it("are accepted, also among those of other models", () => {
    const entries = publishedKeys(published.list);
    expect(() => check(published, entries)).not.toThrow();
    const whole = new Map([
      ["model.diffusion_model.out.2.bias", { shape: [4] }],
      ...[...entries].map(([key, entry]) => [`first_stage_model.${key}`, entry] as const),
    ]);
    expect(() => check(published, whole)).not.toThrow();
  });

  it("have the counted number of parameters", () => {
    const { declared } = autoencoderKLParams(autoencoderKLPresets[published.preset]);
    // The statistics of packed latents are no parameters.
    expect(countParameters({ parameters: declaredTensors({ declared }) })).toBe(
      published.parameters,
    );
  });
});

describe.each(lists)("the published keys $list", (published) => {
  it("are refused by name if one is missing, extra or of another shape", () => {
    const keys = [...publishedKeys(published.list).keys()];
    for (const key of keys) {
      const missing = publishedKeys(published.list);
      missing.delete(key);
      expect(() => check(published, missing)).toThrow(
        `${published.list} does not fit the model: it lacks "${key}" [`,
      );
      const misshaped = publishedKeys(published.list);
      misshaped.get(key)!.shape.push(2);
      expect(() => check(published, misshaped)).toThrow(`"${key}" is [`);
    }
    const extra = publishedKeys(published.list);
    extra.set("encoder.extra.weight", { shape: [1] });
    expect(() => check(published, extra)).toThrow('the model has no "encoder.extra.weight"');
  });
});

describe("the config of a checkpoint", () => {
  it.each(allLists)("is that of $preset for the keys $list", ({ list, preset }) => {
    const entries = publishedKeys(list) as unknown as Weights["entries"];
    const wanted = preset === "FLUX.1-ae" ? preset : undefined;
    expect(autoencoderCheckpointConfig({ entries }, wanted)).toEqual(autoencoderKLPresets[preset]);
  });

  it("does not take the scale of an autoencoder with other channels", () => {
    const entries = publishedKeys("SD-VAE-compvis") as unknown as Weights["entries"];
    const config = autoencoderCheckpointConfig({ entries }, "FLUX.1-ae");
    expect(config.scale).toBe(autoencoderKLPresets["SD-VAE"].scale);
  });
});

describe("packed latents", () => {
  it("are patches with the channel slowest, normalized by the stored statistics, and back", async () => {
    const config = { ...autoencoderKLPresets["FLUX.2-ae"], latentChannels: 2 };
    const p = createParams();
    const packed = scaleLatents(p, input("z", [batch, 2, 2, 4]), config);
    const graph = graphOf({ packed, back: unscaleLatents(p, packed, config) });
    const mean = Array.from({ length: 8 }, (_, i) => i / 10);
    const variance = Array.from({ length: 8 }, (_, i) => 1 + i);
    const z = Array.from({ length: 16 }, (_, i) => i);
    const outputs = evaluateFloat64(graph, {
      z: ndarray("float32", [1, 2, 2, 4], z),
      "bn.running_mean": ndarray("float32", [8], mean),
      "bn.running_var": ndarray("float32", [8], variance),
    });
    // Channel c of row i and column j of a patch is number 4·c + 2·i + j; this is the last one, of the second patch.
    expect(outputs["packed"]!.shape).toEqual([1, 8, 1, 2]);
    const last = (15 - Math.fround(0.7)) / Math.sqrt(8 + 1e-4);
    expect(toNumbers(outputs["packed"]!).at(-1)).toBeCloseTo(last, 6);
    for (const [i, value] of toNumbers(outputs["back"]!).entries())
      expect(value).toBeCloseTo(z[i]!, 5);
  });
});

describe("autoencoderKLConfig", () => {
  const blocks = (name: string) => new Array<string>(4).fill(name);
  const published = {
    _class_name: "AutoencoderKL",
    in_channels: 3,
    out_channels: 3,
    down_block_types: blocks("DownEncoderBlock2D"),
    up_block_types: blocks("UpDecoderBlock2D"),
    block_out_channels: [128, 256, 512, 512],
    layers_per_block: 2,
    latent_channels: 4,
    norm_num_groups: 32,
    sample_size: 256,
  };

  it("reads the class of FLUX.2", () => {
    const { _class_name: _, down_block_types: down, up_block_types: up } = published;
    const fields = {
      _class_name: "AutoencoderKLFlux2",
      down_block_types: down,
      up_block_types: up,
      batch_norm_eps: 1e-4,
      batch_norm_momentum: 0.1,
      patch_size: [2, 2],
    };
    expect(configOf(fields)).toEqual(autoencoderKLPresets["FLUX.2-ae"]);
    expect(configOf({ ...fields, patch_size: [4, 4], batch_norm_eps: 1e-3 }).packing).toEqual({
      patch: 4,
      epsilon: 1e-3,
    });
    expect(() => configOf({ ...fields, patch_size: [1, 2] })).toThrow("packed in squares");
    expect(() => configOf({ ...fields, scaling_factor: 1 })).toThrow('"scaling_factor"');
  });

  it("reads the published configurations", () => {
    expect(configOf(published)).toEqual(autoencoderKLPresets["SD-VAE"]);
    const sd3 = {
      latent_channels: 16,
      scaling_factor: 1.5305,
      shift_factor: 0.0609,
      use_quant_conv: false,
      use_post_quant_conv: false,
    };
    expect(configOf({ ...published, ...sd3 })).toEqual(autoencoderKLPresets["SD3-VAE"]);
    expect(configOf({ ...published, shift_factor: null })).toEqual(autoencoderKLPresets["SD-VAE"]);
  });

  it("has attention where the block types say so, from the highest resolution", () => {
    const config = configOf({
      ...published,
      block_out_channels: [8, 16],
      norm_num_groups: 4,
      down_block_types: ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
      up_block_types: ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"],
      mid_block_add_attention: false,
    });
    expect(config.encoderAttention).toEqual([false, true]);
    expect(config.decoderAttention).toEqual([true, false]);
    const names = [...autoencoderKLParams(config).declared.keys()];
    const attentions = names.filter((name) => name.endsWith("group_norm.bias"));
    expect(attentions.map((name) => name.replace(/\.group_norm\.bias$/, ""))).toEqual([
      ...[0, 1].map((i) => `encoder.down_blocks.1.attentions.${i}`),
      ...[0, 1, 2].map((i) => `decoder.up_blocks.1.attentions.${i}`),
    ]);
  });

  it.each([
    [{ layers_per_block: 0 }, '"layers_per_block" = 0, but it must be a whole number'],
    [{ act_fn: "elu" }, '"act_fn" = "elu", but it must be one of silu, swish, gelu, relu, mish'],
    [{ block_out_channels: [64] }, 'but 1 "block_out_channels" (64); give one width a block'],
    [{ down_block_types: ["DownBlock2D"] }, '"down_block_types" = ["DownBlock2D"]'],
    [{ scaling_factor: "large" }, '"scaling_factor" = "large", but it must be a number'],
    [{ use_quant_conv: 1 }, '"use_quant_conv" = 1, but it must be true or false'],
  ])("refuses %j", (fault, message) => {
    expect(() => configOf({ ...published, ...fault })).toThrow(FormatError);
    expect(() => configOf({ ...published, ...fault })).toThrow(message);
  });
});

describe("latents", () => {
  const config = autoencoderKLPresets["SD3-VAE"];
  const shape = [2, 16, 1, 3];

  it("are scaled for diffusion models and back", () => {
    const z = input("z", [batch, 16, 1, 3]);
    const scaled = scaleLatents(createParams(), z, config);
    const graph = graphOf({ scaled, back: unscaleLatents(createParams(), scaled, config) });
    const given = randomArray(1, "float64", shape);
    const { scaled: got, back } = evaluateFloat64(graph, { z: given });
    expect(toNumbers(got!)[5]).toBeCloseTo((toNumbers(given)[5]! - 0.0609) * 1.5305, 12);
    toNumbers(back!).forEach((x, i) => expect(x).toBeCloseTo(toNumbers(given)[i]!, 12));
  });

  it("are sampled around the mean", () => {
    const [mean, logVariance, noise] = ["mean", "logVariance", "noise"].map((name) =>
      input(name, [batch, 16, 1, 3]),
    );
    const posterior = { mean: mean!, logVariance: logVariance!, moments: mean! };
    const graph = graphOf({ z: samplePosterior(posterior, noise!) });
    const arrays = { mean: 1, logVariance: Math.log(4), noise: -3 };
    const inputs = Object.fromEntries(
      Object.entries(arrays).map(([name, x]) => [
        name,
        ndarray("float64", shape, new Array<number>(sizeOf(shape)).fill(x)),
      ]),
    );
    for (const x of toNumbers(evaluateFloat64(graph, inputs)["z"]!)) expect(x).toBeCloseTo(-5, 12);
  });
});

/** Latents whose decoder repeats each of them, so that tiles cannot differ from the whole. */
const repeat: (z: NdArray<"float32">) => Promise<NdArray<"float32">> = async (z) => {
  const [n, c, h, w] = z.shape as [number, number, number, number];
  const shape = [n, c, 2 * h, 2 * w];
  const data = Float32Array.from({ length: sizeOf(shape) }, (_, i) => {
    const [plane, y, x] = [
      Math.floor(i / (4 * h * w)),
      Math.floor(i / (2 * w)) % (2 * h),
      i % (2 * w),
    ];
    return z.data[(plane * h + (y >> 1)) * w + (x >> 1)]!;
  });
  return ndarray("float32", shape, data);
};

describe("tiledDecode", () => {
  const sizes = fc.record({
    height: fc.integer({ min: 1, max: 14 }),
    width: fc.integer({ min: 1, max: 14 }),
    tile: fc.integer({ min: 2, max: 6 }),
    overlap: fc.integer({ min: 0, max: 5 }),
  });

  it("equals decoding the whole for a decoder without context", async () => {
    await fc.assert(
      fc.asyncProperty(sizes, async ({ height, width, tile, overlap }) => {
        fc.pre(overlap < tile);
        const z = randomArray(7, "float32", [2, 3, height, width]) as NdArray<"float32">;
        const got = await tiledDecode(repeat, z, { tile, overlap });
        const want = await repeat(z);
        expect(got.shape).toEqual(want.shape);
        got.data.forEach((x, i) => expect(Math.abs(x - want.data[i]!)).toBeLessThan(1e-6));
      }),
      { numRuns: 60 },
    );
  });

  it("blends random tiles by the definition", async () => {
    await fc.assert(
      fc.asyncProperty(sizes, async ({ height, width, tile, overlap }) => {
        fc.pre(overlap < tile && (height > tile || width > tile));
        const z = randomArray(8, "float32", [1, 2, height, width]) as NdArray<"float32">;
        const got = await tiledDecode(countingDecoder(), z, { tile, overlap });
        const want = await blendedAsDefined(countingDecoder(), z, tile, overlap);
        expect(got.shape).toEqual([1, 2, 2 * height, 2 * width]);
        got.data.forEach((x, i) => expect(Math.abs(x - want[i]!)).toBeLessThan(1e-5));
      }),
      { numRuns: 60 },
    );
  });

  it("gives the decoder full tiles only, which overlap by at least what is asked for", async () => {
    await fc.assert(
      fc.asyncProperty(sizes, async ({ height, width, tile, overlap }) => {
        fc.pre(overlap < tile);
        const shape = [1, 2, height, width];
        const rows = Float32Array.from({ length: 2 * height * width }, (_, i) =>
          i < height * width ? Math.floor(i / width) : i % width,
        );
        const places: [number, number][] = [];
        await tiledDecode(
          (z) => {
            expect(z.shape).toEqual([1, 2, Math.min(tile, height), Math.min(tile, width)]);
            places.push([z.data[0]!, z.data[z.data.length / 2]!]);
            return repeat(z);
          },
          ndarray("float32", shape, rows),
          { tile, overlap },
        );
        for (const axis of [0, 1] as const) {
          const starts = [...new Set(places.map((place) => place[axis]))];
          for (const [i, start] of starts.slice(1).entries()) {
            expect(starts[i]! + tile - start).toBeGreaterThanOrEqual(overlap);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it("blends the tiles of a real decoder by the definition", async () => {
    await withRecording(path.join(fixtures, "autoencoder_kl"), async ({ config, model }) => {
      const vae = configOf(config.fields["args"] as Args);
      const weights = checkedWeights(autoencoderKLParams(vae), model!.weights);
      const decode = async (z: NdArray<"float32">): Promise<NdArray<"float32">> => {
        const y = decodeLatents(createParams(), input("z", [...z.shape]), vae);
        const program = await backend.compile(graphOf({ y }), { weights });
        const image = (await program.run({ z }))["y"]!;
        await program.dispose();
        return image as NdArray<"float32">;
      };
      const z = randomArray(12, "float32", [1, 4, 11, 13]) as NdArray<"float32">;
      const got = await tiledDecode(decode, z, { tile: 8, overlap: 2 });
      const want = await blendedAsDefined(decode, z, 8, 2);
      expect(got.shape).toEqual([1, 3, 22, 26]);
      got.data.forEach((x, i) => expect(Math.abs(x - want[i]!)).toBeLessThan(1e-5));
    });
  });

  // At its edge, a tile is off by a third of the ramp's slope; the blend leaves of that 1 / overlap.
  it.each([
    [0, 27, 1 / 3],
    [1, 25, 1 / 3],
    [2, 23, 1 / 6],
    [4, 24, 1 / 12],
  ])(
    "of a smooth image with overlap %d in a width of %d differs by %d of its slope",
    async (overlap, width, expected) => {
      const height = 5;
      const ramp = Float32Array.from({ length: height * width }, (_, i) => i % width);
      const z = ndarray("float32", [1, 1, height, width], ramp);
      const whole = await blurring(z);
      const tiles = await tiledDecode(blurring, z, { tile: 9, overlap });
      const error = Math.max(...tiles.data.map((x, i) => Math.abs(x - whole.data[i]!)));
      expect(error).toBeCloseTo(expected, 5);
    },
  );

  it("decodes latents no larger than a tile at once", async () => {
    const z = randomArray(9, "float32", [1, 1, 4, 5]) as NdArray<"float32">;
    const seen: (readonly number[])[] = [];
    const decode = (tile: NdArray<"float32">) => {
      seen.push(tile.shape);
      return repeat(tile);
    };
    await tiledDecode(decode, z, { tile: 5, overlap: 1 });
    expect(seen).toEqual([[1, 1, 4, 5]]);
  });

  it("does not overwrite arrays of the decoder", async () => {
    const z = randomArray(10, "float32", [1, 1, 6, 6]) as NdArray<"float32">;
    const held: [NdArray<"float32">, number[]][] = [];
    const decode = async (tile: NdArray<"float32">) => {
      const image = await repeat(tile);
      image.data[0] = 9;
      held.push([image, toNumbers(image)]);
      return image;
    };
    await tiledDecode(decode, z, { tile: 4, overlap: 2 });
    expect(held).toHaveLength(4);
    for (const [image, before] of held) expect(toNumbers(image)).toEqual(before);
  });

  it.each([
    [4, 4],
    [4, -1],
    [0, 0],
    [4.5, 1],
  ])("refuses tiles of %d that overlap by %d", async (tile, overlap) => {
    const z = randomArray(11, "float32", [1, 1, 6, 6]) as NdArray<"float32">;
    await expect(tiledDecode(repeat, z, { tile, overlap })).rejects.toThrow(ShapeError);
  });
});

/** A decoder that looks at neighbours: the mean of 3×3 latents, those at the edge again beyond it. */
const blurring: typeof repeat = async (z) => {
  const [h, w] = z.shape.slice(2) as [number, number];
  const at = (y: number, x: number) =>
    z.data[Math.min(h - 1, Math.max(0, y)) * w + Math.min(w - 1, Math.max(0, x))]!;
  const steps = [-1, 0, 1];
  const blurred = z.data.map((_, i) => {
    const [y, x] = [Math.floor(i / w), i % w];
    const square = steps.flatMap((dy) => steps.map((dx) => at(y + dy, x + dx)));
    return square.reduce((sum, value) => sum + value, 0) / 9;
  });
  return repeat({ ...z, data: blurred });
};

/** A decoder whose tiles disagree: each adds its own number to what it repeats. */
function countingDecoder(): typeof repeat {
  let count = 0;
  return async (z) => {
    const image = await repeat(z);
    const offset = Math.sin(count++);
    return { ...image, data: image.data.map((x, i) => x + offset + (i % 7) / 7) };
  };
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: items.length / size }, (_, i) =>
    items.slice(i * size, (i + 1) * size),
  );
}

/** The blend as it is defined: all tiles first, each faded into from above and then from the left, then cut. */
async function blendedAsDefined(
  decode: typeof repeat,
  z: NdArray<"float32">,
  tile: number,
  overlap: number,
): Promise<number[]> {
  const [, channels, height, width] = z.shape as [number, number, number, number];
  /** The fewest full tiles, evenly spaced. */
  const startsIn = (side: number) => {
    let count = 1;
    while (tile * count - overlap * (count - 1) < side) count++;
    return Array.from({ length: count }, (_, i) =>
      count === 1 ? 0 : Math.round((i * (side - tile)) / (count - 1)),
    );
  };
  const [tops, lefts] = [startsIn(height), startsIn(width)];
  type Plane = number[][];
  const rows: Plane[][][] = [];
  for (const top of tops) {
    const row: Plane[][] = [];
    for (const left of lefts) {
      const [h, w] = [Math.min(tile, height - top), Math.min(tile, width - left)];
      const piece = Array.from({ length: channels * h * w }, (_, i) => {
        const [c, y, x] = [Math.floor(i / (h * w)), Math.floor(i / w) % h, i % w];
        return z.data[(c * height + top + y) * width + left + x]!;
      });
      const { data } = await decode(ndarray("float32", [1, channels, h, w], piece));
      row.push(chunks(chunks([...data], 2 * w), 2 * h));
    }
    rows.push(row);
  }
  const planes: Plane[] = rows[0]![0]!.map(() => []);
  for (const [i, row] of rows.entries()) {
    for (const [j, image] of row.entries()) {
      for (const [c, plane] of image.entries()) {
        const [above, before] = [rows[i - 1]?.[j]?.[c], row[j - 1]?.[c]];
        const down = above ? 2 * (tops[i - 1]! + tile - tops[i]!) : 0;
        for (let y = 0; y < down; y++) {
          const from = above!.at(y - down)!;
          plane[y] = plane[y]!.map((v, x) => from[x]! * (1 - y / down) + v * (y / down));
        }
        const across = before ? 2 * (lefts[j - 1]! + tile - lefts[j]!) : 0;
        for (const [y, line] of plane.entries()) {
          for (let x = 0; x < across; x++) {
            const share = x / across;
            line[x] = before![y]!.at(x - across)! * (1 - share) + line[x]! * share;
          }
        }
      }
    }
    for (const c of planes.keys()) {
      const lines = 2 * ((tops[i + 1] ?? height) - tops[i]!);
      const ends = lefts.map((left, j) => 2 * ((lefts[j + 1] ?? width) - left));
      for (let y = 0; y < lines; y++) {
        planes[c]!.push(row.flatMap((image, j) => image[c]![y]!.slice(0, ends[j])));
      }
    }
  }
  return planes.flat(2);
}

describe("encodeImages", () => {
  it("bounds the variance", async () => {
    const config = {
      ...autoencoderKLPresets["SD-VAE"],
      widths: [2],
      groups: 1,
      layers: 1,
      encoderAttention: [false],
      decoderAttention: [false],
    };
    const { logVariance } = encodeImages(createParams(), input("x", [1, 3, 2, 2]), config);
    const graph = graphOf({ logVariance });
    const zeros = Object.fromEntries(
      graph.parameters.map(({ node, shape }) => [
        (node.attributes as { name: string }).name,
        randomArray(3, "float64", resolve(shape, undefined), 50, 90),
      ]),
    );
    const x = randomArray(4, "float64", [1, 3, 2, 2], 1, 2);
    const values = toNumbers(evaluateFloat64(graph, { x, ...zeros })["logVariance"]!);
    expect(values.every((value) => value === 20)).toBe(true);
  });
});
