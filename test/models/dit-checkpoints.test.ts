import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { ditPresets } from "../../src/models/dit/config.ts";
import { traceNetwork } from "../../src/models/network.ts";
import {
  configOfDiffusersWeights,
  diffusersDiTConfig,
  diffusersDiTKeys,
} from "../../src/models/dit/checkpoint.ts";
import { checkedWeights, checkKeys } from "../../src/weights/check-keys.ts";
import { checkTables } from "../../src/weights/check-keys.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { bytesSource, openSafetensors, safetensorsBytes } from "../../src/weights/index.ts";
import { joinQkv } from "../../src/weights/views.ts";
import { openSafetensorsFile } from "../../src/weights/safetensors/file-node.ts";
import { randomArray } from "../support/arrays.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const oracle = path.join(fixtures, "dit");
const backend = nodeBackend("cpu");

describe("the keys of a checkpoint", () => {
  const keys = (name: string) => {
    const text = readFileSync(path.join(fixtures, "keys", `${name}.json`), "utf8");
    const shapes = JSON.parse(text) as Record<string, number[]>;
    return new Map(Object.entries(shapes).map(([key, shape]) => [key, { shape }]));
  };
  const { params } = traceNetwork({ kind: "dit", ...ditPresets["DiT-XL/2"] });

  it("of both published models match ours in names and shapes", () => {
    const large = traceNetwork({ kind: "dit", ...ditPresets["DiT-XL/2"], size: [64, 64] });
    for (const [name, asked] of [
      ["DiT-XL-2-256", params],
      ["DiT-XL-2-512", large.params],
    ] as const) {
      const entries = keys(name);
      checkKeys(asked, { name, entries });
      expect([...asked.declared.keys(), ...asked.buffers.keys()].sort()).toEqual(
        [...entries.keys()].sort(),
      );
    }
  });

  it("can lack the position table", () => {
    const entries = keys("DiT-XL-2-256");
    entries.delete("pos_embed");
    expect(() => checkKeys(params, { name: "it", entries })).not.toThrow();
  });

  it("that are missing, extra or of another shape are named", () => {
    const entries = keys("DiT-XL-2-256");
    entries.delete("blocks.3.attn.qkv.bias");
    entries.set("blocks.28.attn.qkv.bias", { shape: [3456] });
    entries.set("final_layer.linear.weight", { shape: [16, 1152] });
    entries.set("pos_embed", { shape: [1, 1024, 1152] });
    const check = () => checkKeys(params, { name: "it.safetensors", entries });
    expect(check).toThrow(FormatError);
    expect(check).toThrow('it lacks "blocks.3.attn.qkv.bias" [3456]');
    expect(check).toThrow('the model has no "blocks.28.attn.qkv.bias"');
    expect(check).toThrow('"final_layer.linear.weight" is [16, 1152] instead of [32, 1152]');
    expect(check).toThrow('"pos_embed" is [1, 1024, 1152] instead of [1, 256, 1152]');
  });

  it("are refused if their position table differs from ours", async () => {
    const { params: asked } = traceNetwork({ kind: "dit", ...ditPresets["DiT-S/8"], depth: 1 });
    const { value } = asked.buffers.get("pos_embed")!;
    const stored = (table: NdArray) =>
      openSafetensors(bytesSource(safetensorsBytes([["pos_embed", table]]), "it"));
    await checkTables(asked, await stored(value));
    const data = (value.data as Float32Array).toReversed();
    await expect(checkTables(asked, await stored({ ...value, data }))).rejects.toThrow(
      'it: "pos_embed" is not the table that this model computes',
    );
  });
});

describe("diffusers' checkpoint", () => {
  const original = openSafetensorsFile(path.join(oracle, "weights.safetensors"));

  /** The oracle's weights as diffusers' DiTTransformer2DModel saves them, every block with its embeddings. */
  async function diffusersFile() {
    const weights = await original;
    const read = async (name: string) => (await weights.read(name)) as NdArray<"float32">;
    const tensors: [string, NdArray][] = [];
    for (const kind of ["weight", "bias"]) {
      const put = async (theirs: string, ours: string) =>
        tensors.push([`${theirs}.${kind}`, await read(`${ours}.${kind}`)]);
      await put("pos_embed.proj", "x_embedder.proj");
      await put("proj_out_1", "final_layer.adaLN_modulation.1");
      await put("proj_out_2", "final_layer.linear");
      for (const i of [0, 1, 2]) {
        const block = `transformer_blocks.${i}`;
        const embeddings = `${block}.norm1.emb.timestep_embedder`;
        await put(`${embeddings}.linear_1`, "t_embedder.mlp.0");
        await put(`${embeddings}.linear_2`, "t_embedder.mlp.2");
        await put(`${block}.norm1.linear`, `blocks.${i}.adaLN_modulation.1`);
        await put(`${block}.attn1.to_out.0`, `blocks.${i}.attn.proj`);
        await put(`${block}.ff.net.0.proj`, `blocks.${i}.mlp.fc1`);
        await put(`${block}.ff.net.2`, `blocks.${i}.mlp.fc2`);
        const qkv = await read(`blocks.${i}.attn.qkv.${kind}`);
        const third = qkv.data.length / 3;
        for (const [j, name] of ["to_q", "to_k", "to_v"].entries()) {
          const data = qkv.data.subarray(j * third, (j + 1) * third);
          const shape = [qkv.shape[0]! / 3, ...qkv.shape.slice(1)];
          tensors.push([`${block}.attn1.${name}.${kind}`, { dtype: "float32", shape, data }]);
        }
      }
    }
    const table = await read("y_embedder.embedding_table.weight");
    for (const i of [0, 1, 2]) {
      const name = `transformer_blocks.${i}.norm1.emb.class_embedder.embedding_table.weight`;
      tensors.push([name, table]);
    }
    return openSafetensors(bytesSource(safetensorsBytes(tensors), "diffusers"));
  }

  const config = diffusersDiTConfig(
    fieldReader("config.json", {
      _class_name: "DiTTransformer2DModel",
      num_attention_heads: 4,
      attention_head_dim: 16,
      in_channels: 4,
      out_channels: 8,
      num_layers: 3,
      sample_size: 8,
      patch_size: 2,
      norm_type: "ada_norm_zero",
      num_embeds_ada_norm: 10,
      activation_fn: "gelu-approximate",
    }),
  );

  it("gives the same outputs as the original's", async () => {
    const weights = joinQkv(await diffusersFile());
    const { params, output } = traceNetwork({ kind: "dit", ...config });
    const graph = graphOf({ output });
    const inputs = {
      x: randomArray(3, "float32", [2, 4, 8, 8]),
      t: ndarray("float32", [2], [999, 20]),
      y: ndarray("int64", [2], [4, 10]),
    };
    const theirs = await backend.compile(graph, {
      weights: checkedWeights(params, weights, diffusersDiTKeys),
    });
    const ours = await backend.compile(graph, {
      weights: checkedWeights(params, await original),
    });
    expect(await theirs.run(inputs)).toEqual(await ours.run(inputs));
    await Promise.all([theirs.dispose(), ours.dispose()]);
  });

  it("has shared embeddings if those of all blocks are copies", async () => {
    const fields = fieldReader("config.json", {});
    expect(await configOfDiffusersWeights(config, fields, await diffusersFile())).toBe(config);
  });

  it("draws with the embeddings of each block, if they differ, and with the frequencies of diffusers", async () => {
    const folder = path.join(fixtures, "dit_blocks_own_embeddings");
    const json = (name: string) => JSON.parse(readFileSync(path.join(folder, name), "utf8"));
    const fields = fieldReader("config.json", json("config.json"));
    const file = await openSafetensorsFile(
      path.join(folder, "diffusion_pytorch_model.safetensors"),
    );
    const own = await configOfDiffusersWeights(diffusersDiTConfig(fields), fields, file);
    expect(own).toMatchObject({ embeddings: "per-block", feedForwardNorm: { epsilon: 1e-5 } });
    const { params, output } = traceNetwork({ kind: "dit", ...own });
    const program = await backend.compile(graphOf({ output }), {
      weights: checkedWeights(params, joinQkv(file), diffusersDiTKeys),
    });
    const { t, y, output: wanted } = json("expected.json");
    const drawn = await program.run({
      x: ndarray(
        "float32",
        [2, 4, 4, 4],
        Float32Array.from({ length: 128 }, (_, i) => i / 64 - 1),
      ),
      t: ndarray("float32", [2], t),
      y: ndarray("int64", [2], y),
    });
    // Float32 against float64, for outputs up to 10.
    for (const [i, value] of drawn.output!.data.entries()) expect(value).toBeCloseTo(wanted[i], 4);
    await Promise.all([program.dispose(), file.close()]);
  });

  it("names missing weights by diffusers' names", async () => {
    const weights = joinQkv(await diffusersFile());
    const entries = new Map(weights.entries);
    entries.delete("transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight");
    const { params } = traceNetwork({ kind: "dit", ...config });
    expect(() => checkKeys(params, { name: "it", entries }, diffusersDiTKeys)).toThrow(
      'it lacks "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight" [11, 64]',
    );
  });

  it("is refused if its config is not of a DiT", () => {
    const read = fieldReader("config.json", { norm_type: "ada_norm_single" });
    expect(() => diffusersDiTConfig(read)).toThrow(/"norm_type" = "ada_norm_single", but only/);
  });
});
