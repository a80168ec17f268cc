import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { castArray, type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { traceNetwork, type TraceOptions } from "../../src/models/network.ts";
import {
  diffusersMMDiTConfig,
  diffusersMMDiTKeys,
  diffusersMMDiTWeights,
  mmditCheckpointConfig,
  mmditConfig,
} from "../../src/models/mmdit/checkpoint.ts";
import { type MMDiTConfig, mmditPresets } from "../../src/models/mmdit/config.ts";
import { checkedWeights, checkKeys } from "../../src/weights/check-keys.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { bytesSource, openSafetensors, safetensorsBytes } from "../../src/weights/index.ts";
import { openSafetensorsFile, writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import type { Weights } from "../../src/weights/safetensors/safetensors.ts";
import { weightsUnder } from "../../src/weights/views.ts";
import { randomArray } from "../support/arrays.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const oracle = path.join(fixtures, "sd3_mmditx");
const backend = nodeBackend("cpu");
const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-mmdit-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const trace = (config: MMDiTConfig, options?: TraceOptions) =>
  traceNetwork({ kind: "mmdit", ...config }, options);

/** The keys of a published checkpoint. */
function keys(name: string, prefix = ""): Pick<Weights, "name" | "entries"> {
  const text = readFileSync(path.join(fixtures, "keys", `${name}.json`), "utf8");
  const shapes = Object.entries(JSON.parse(text) as Record<string, number[]>);
  const entries = new Map(shapes.map(([key, shape]) => [prefix + key, { shape }]));
  return { name: `${name}.safetensors`, entries: entries as unknown as Weights["entries"] };
}

describe.each([
  ["SD3-medium", "SD3-medium-MMDiT"],
  ["SD3.5-medium", "SD3.5-medium-MMDiT-X"],
  ["SD3.5-large", "SD3.5-large-MMDiT"],
] as const)("the checkpoint of %s", (preset, file) => {
  const { params } = trace(mmditPresets[preset]);
  const checkpoint = keys(file);

  it("matches ours in names and shapes, and gives its config", () => {
    checkKeys(params, checkpoint);
    expect([...params.declared.keys()].sort()).toEqual([...checkpoint.entries.keys()].sort());
    expect(mmditCheckpointConfig(checkpoint)).toEqual(mmditPresets[preset]);
  });

  it("is the same in a single file", () => {
    const prefix = "model.diffusion_model.";
    const { name, entries } = keys(file, prefix);
    const whole: Weights = {
      name,
      entries,
      metadata: new Map(),
      read: () => Promise.reject(new Error("nothing is there to read")),
      close: () => Promise.resolve(),
    };
    const inside = weightsUnder(whole, prefix);
    checkKeys(params, inside);
    expect(mmditCheckpointConfig(inside)).toEqual(mmditPresets[preset]);
  });

  it("is refused by name if keys are missing, extra or of another shape", () => {
    const { name, entries: whole } = checkpoint;
    const entries = new Map<string, { readonly shape: readonly number[] }>(whole);
    const last = `joint_blocks.${mmditPresets[preset].depth - 1}`;
    entries.delete("joint_blocks.3.x_block.attn.qkv.bias");
    entries.set(`${last}.context_block.attn.proj.weight`, { shape: [1, 1] });
    entries.set("pos_embed", { shape: [1, 4096, 1536] });
    const check = () => checkKeys(params, { name, entries });
    expect(check).toThrow(FormatError);
    expect(check).toThrow('it lacks "joint_blocks.3.x_block.attn.qkv.bias"');
    expect(check).toThrow(`the model has no "${last}.context_block.attn.proj.weight"`);
    expect(check).toThrow('"pos_embed" is [1, 4096, 1536] instead of [1, ');
  });
});

describe("the config of a checkpoint", () => {
  it("cannot be inferred without the required keys, or for unusual widths", () => {
    const config = (entries: Record<string, readonly number[]>) =>
      mmditCheckpointConfig({
        name: "it.safetensors",
        entries: new Map(
          Object.entries(entries).map(([key, shape]) => [key, { shape }]),
        ) as unknown as Weights["entries"],
      });
    expect(() => config({})).toThrow('it.safetensors has no "x_embedder.proj.weight"');
    const odd = { "x_embedder.proj.weight": [100, 16, 2, 2], pos_embed: [1, 4, 100] };
    expect(() => config(odd)).toThrow(
      "it.safetensors is an MMDiT of width 100, from which its number of heads cannot be inferred",
    );
  });

  it("matches the arguments of the original", async () => {
    const { args } = JSON.parse(readFileSync(path.join(oracle, "config.json"), "utf8"));
    const weights = await openSafetensorsFile(path.join(oracle, "weights.safetensors"));
    const config = mmditConfig(fieldReader("args", args), { hidden: 48, heads: 3 });
    expect(mmditCheckpointConfig(weights)).toEqual(config);
    await weights.close();
  });
});

describe("the original's arguments", () => {
  const args = {
    adm_in_channels: 20,
    pos_embed_max_size: 8,
    context_embedder_config: {
      target: "torch.nn.Linear",
      params: { in_features: 24, out_features: 192 },
    },
    depth: 3,
  };
  const read = (fields: object) => mmditConfig(fieldReader("args", { ...args, ...fields }));

  it("give width and heads by the depth", () => {
    expect(read({})).toMatchObject({ hidden: 192, heads: 3, size: [16, 16], qkNorm: null });
    expect(read({}).condition).toMatchObject({ width: 24, pooled: 20 });
    expect(read({ qk_norm: "ln" }).qkNorm).toEqual({ kind: "layer", affine: true, epsilon: 1e-6 });
    expect(read({ learn_sigma: true, out_channels: 8 }).learnedVariance).toBe(true);
  });

  it("are refused for unsupported networks", () => {
    expect(() => read({ register_length: 4 })).toThrow(
      'has "register_length" = 4, but only 0 and null are supported',
    );
    expect(() => read({ out_channels: 5 })).toThrow('has "out_channels" = 5, but');
    expect(() => read({ x_block_self_attn_layers: [1, 3] })).toThrow(
      'args has 3 among its "x_block_self_attn_layers", but its blocks are numbered from 0 to 2',
    );
    expect(() => read({ qk_norm: "l2" })).toThrow('"qk_norm" = "l2", but it must be');
  });
});

describe("diffusers' checkpoint", () => {
  const original = openSafetensorsFile(path.join(oracle, "weights.safetensors"));
  const config = diffusersMMDiTConfig(
    fieldReader("config.json", {
      _class_name: "SD3Transformer2DModel",
      attention_head_dim: 16,
      caption_projection_dim: 48,
      dual_attention_layers: [0, 1],
      in_channels: 16,
      joint_attention_dim: 24,
      num_attention_heads: 3,
      num_layers: 3,
      out_channels: 16,
      patch_size: 2,
      pooled_projection_dim: 20,
      pos_embed_max_size: 8,
      qk_norm: "rms_norm",
      sample_size: 128,
    }),
  );

  /** The oracle's weights as diffusers' SD3Transformer2DModel saves them. */
  async function diffusersFile(dtype: NdArray["dtype"] = "float32"): Promise<Weights> {
    const weights = await original;
    const tensors: [string, NdArray][] = [];
    const pieces = async (name: string, count: number) => {
      const { data, shape } = (await weights.read(name)) as NdArray<"float32">;
      const size = data.length / count;
      return Array.from({ length: count }, (_, i) =>
        ndarray(
          "float32",
          [shape[0]! / count, ...shape.slice(1)],
          data.subarray(i * size, (i + 1) * size),
        ),
      );
    };
    const swapped = async (name: string) => {
      const [shift, scale] = (await pieces(name, 2)) as [NdArray, NdArray];
      const shape = [2 * shift.shape[0]!, ...shift.shape.slice(1)];
      return ndarray("float32", shape, [...toNumbers(scale), ...toNumbers(shift)]);
    };
    const put = (name: string, array: NdArray) => tensors.push([name, castArray(array, dtype)]);
    put("pos_embed.pos_embed", await weights.read("pos_embed"));
    for (const kind of ["weight", "bias"]) {
      const copy = async (theirs: string, ours: string) =>
        put(`${theirs}.${kind}`, await weights.read(`${ours}.${kind}`));
      await copy("pos_embed.proj", "x_embedder.proj");
      await copy("context_embedder", "context_embedder");
      for (const [theirs, ours] of [
        ["timestep_embedder", "t_embedder"],
        ["text_embedder", "y_embedder"],
      ]) {
        await copy(`time_text_embed.${theirs}.linear_1`, `${ours}.mlp.0`);
        await copy(`time_text_embed.${theirs}.linear_2`, `${ours}.mlp.2`);
      }
      await copy("proj_out", "final_layer.linear");
      put(`norm_out.linear.${kind}`, await swapped(`final_layer.adaLN_modulation.1.${kind}`));
      for (const i of [0, 1, 2]) {
        const [block, ours] = [`transformer_blocks.${i}`, `joint_blocks.${i}`];
        const apart = async (names: readonly string[], from: string) => {
          for (const [j, piece] of (await pieces(`${ours}.${from}.qkv.${kind}`, 3)).entries()) {
            put(`${block}.${names[j]}.${kind}`, piece);
          }
        };
        await apart(["attn.to_q", "attn.to_k", "attn.to_v"], "x_block.attn");
        await apart(
          ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
          "context_block.attn",
        );
        await copy(`${block}.norm1.linear`, `${ours}.x_block.adaLN_modulation.1`);
        await copy(`${block}.attn.to_out.0`, `${ours}.x_block.attn.proj`);
        await copy(`${block}.ff.net.0.proj`, `${ours}.x_block.mlp.fc1`);
        await copy(`${block}.ff.net.2`, `${ours}.x_block.mlp.fc2`);
        if (i < 2) {
          await apart(["attn2.to_q", "attn2.to_k", "attn2.to_v"], "x_block.attn2");
          await copy(`${block}.attn2.to_out.0`, `${ours}.x_block.attn2.proj`);
          await copy(`${block}.norm1_context.linear`, `${ours}.context_block.adaLN_modulation.1`);
          await copy(`${block}.attn.to_add_out`, `${ours}.context_block.attn.proj`);
          await copy(`${block}.ff_context.net.0.proj`, `${ours}.context_block.mlp.fc1`);
          await copy(`${block}.ff_context.net.2`, `${ours}.context_block.mlp.fc2`);
        } else {
          const modulation = `${ours}.context_block.adaLN_modulation.1.${kind}`;
          put(`${block}.norm1_context.linear.${kind}`, await swapped(modulation));
        }
      }
    }
    for (const i of [0, 1, 2]) {
      const [block, ours] = [`transformer_blocks.${i}`, `joint_blocks.${i}`];
      for (const part of ["q", "k"]) {
        const norm = async (theirs: string, from: string) =>
          put(`${block}.${theirs}.weight`, await weights.read(`${ours}.${from}.ln_${part}.weight`));
        await norm(`attn.norm_${part}`, "x_block.attn");
        await norm(`attn.norm_added_${part}`, "context_block.attn");
        if (i < 2) await norm(`attn2.norm_${part}`, "x_block.attn2");
      }
    }
    if (dtype === "float32") {
      return openSafetensors(bytesSource(safetensorsBytes(tensors), "diffusers"));
    }
    const file = path.join(scratch, `${dtype}.safetensors`);
    await writeSafetensors(file, tensors);
    return openSafetensorsFile(file);
  }

  const inputs = {
    x: randomArray(3, "float32", [2, 16, 6, 10]),
    t: ndarray("float32", [2], [999, 20]),
    context: randomArray(4, "float32", [2, 5, 24]),
    pooled: randomArray(5, "float32", [2, 20]),
  };
  const short = { ...config, condition: { ...config.condition, length: 5 } };
  const { params, output } = trace(short, { size: [6, 10] });
  const graph = graphOf({ output });

  async function drawn(weights: Weights, ...map: Parameters<typeof checkedWeights>[2][]) {
    const program = await backend.compile(graph, {
      weights: checkedWeights(params, weights, ...map),
    });
    const { output: found } = await program.run(inputs);
    await program.dispose();
    return found!;
  }

  it("gives the same config as the original's", async () => {
    const { args } = JSON.parse(readFileSync(path.join(oracle, "config.json"), "utf8"));
    expect(config).toEqual(mmditConfig(fieldReader("args", args), { hidden: 48, heads: 3 }));
    const read = fieldReader("config.json", { caption_projection_dim: 100 });
    expect(() => diffusersMMDiTConfig(read)).toThrow(
      'config.json has "caption_projection_dim" = 100, but it must be 1152, the width of its tokens',
    );
  });

  it("gives the same outputs as the original's", async () => {
    const theirs = diffusersMMDiTWeights(await diffusersFile(), config);
    expect(await drawn(theirs, diffusersMMDiTKeys)).toEqual(await drawn(await original));
  });

  it.each([
    ["float16", 2 ** -10],
    ["bfloat16", 2 ** -7],
  ] as const)("does so too in %s, where its file lies", async (dtype, rounding) => {
    const file = await diffusersFile(dtype);
    const found = toNumbers(await drawn(diffusersMMDiTWeights(file, config), diffusersMMDiTKeys));
    const expected = toNumbers(await drawn(await original));
    const largest = Math.max(...expected.map(Math.abs));
    const errors = found.map((x, i) => Math.abs(x - expected[i]!));
    expect(Math.max(...errors)).toBeLessThan(4 * rounding * largest);
    expect(Math.max(...errors)).toBeGreaterThan(0);
    await file.close();
  });

  it("names missing weights by diffusers' names", async () => {
    const weights = diffusersMMDiTWeights(await diffusersFile(), config);
    const entries = new Map(weights.entries);
    entries.delete("transformer_blocks.0.attn.norm_added_q.weight");
    expect(() => checkKeys(params, { name: "it", entries }, diffusersMMDiTKeys)).toThrow(
      'it lacks "transformer_blocks.0.attn.norm_added_q.weight" [16]',
    );
  });
});
