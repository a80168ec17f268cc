import path from "node:path";
import { describe, expect, it } from "vitest";
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";
import { permuteAxes } from "../../src/engine/arrays/permute.ts";
import { FormatError } from "../../src/engine/errors.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { miniT2IMeanFlowConfig } from "../../src/models/minit2i/checkpoint.ts";
import { miniT2IPresets } from "../../src/models/minit2i/config.ts";
import { miniT2I } from "../../src/models/minit2i/minit2i.ts";
import { networkSchema } from "../../src/models/network.ts";
import { miniT2IFamily } from "../../src/models/minit2i/family.ts";
import { sliceRows } from "../../src/engine/runtime/stored-weight.ts";
import {
  bytesSource,
  openSafetensors,
  safetensorsBytes,
  storedWeights,
} from "../../src/weights/index.ts";
import { readStored } from "../../src/weights/stored-node.ts";
import { createParams } from "../../src/nn/params.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");

it.each([
  ["minit2i", 94],
  ["minit2i_sampling", 27],
  ["minit2i_mf", 25],
])("the recording %s of the original is reproduced", async (folder, outputs) => {
  const report = await withRecording(path.join(fixtures, folder), (recording) =>
    verifyRecording(recording, async () => nodeBackend("cpu")),
  );
  expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
  expect(report.outputs).toHaveLength(outputs);
});

describe("the config", () => {
  const { unreadWidth: _, ...base } = miniT2IPresets["MiniT2I-B/16"];
  const refused = (change: object) => {
    const result = networkSchema().safeParse({ kind: "minit2i", ...base, ...change });
    return result.success ? [] : result.error.issues.map(({ message }) => message);
  };

  it("refuses heads that rotary positions of rows and columns cannot turn", () => {
    expect(refused({})).toEqual([]);
    expect(refused({ heads: 128 })[0]).toMatch(/128 heads .* multiples of 4/);
    expect(refused({ heads: 128, headSize: 8 })).toEqual([]);
    expect(refused({ size: [40, 40] })[0]).toContain("patches of 16×16");
  });

  it("reads every argument of the mean-flow network, and refuses others by name", () => {
    const read = (args: object) =>
      miniT2IMeanFlowConfig(fieldReader("args", args as Record<string, unknown>));
    expect(read({})).toEqual(miniT2IPresets["MiniT2I-B/16-MF"]);
    expect(read({ num_time_tokens: 3 }).meanFlow?.time).toBe(3);
    expect(() => read({ txt_hidden_size: 64 })).toThrow(FormatError);
    expect(() => read({ adaln: true })).toThrow('"adaln"');
  });
});

it("the tree of parameters of the JAX code holds the same numbers, in its own layout", async () => {
  await withRecording(path.join(fixtures, "minit2i_mf"), async ({ model }) => {
    const tree: [string, NdArray][] = [];
    for (const name of model!.weights.entries.keys()) {
      const array = await model!.weights.read(name);
      const orders: Record<number, number[]> = { 2: [1, 0], 4: [2, 3, 1, 0] };
      const axes = name.endsWith(".weight") ? orders[array.shape.length] : undefined;
      tree.push([flaxPath(name, array), axes ? permuteAxes(array, axes) : array]);
    }
    const file = await openSafetensors(bytesSource(safetensorsBytes(tree), "flax"));
    expect(miniT2IFamily.original!.recognises(file)).toBe(true);
    const read = miniT2IFamily.original!.weights!(file);
    const stored = storedWeights(read);
    for (const name of model!.weights.entries.keys()) {
      const want = await model!.weights.read(name);
      expect(await read.read(name)).toEqual(want);
      expect(await readStored(stored(name)!)).toEqual(want);
    }
    const whole = stored("double_blocks.0.img_qkv.weight")!;
    const rows = await readStored(sliceRows(sliceRows(whole, 0, 30, 40), 0, 6, 3));
    const { data } = await model!.weights.read("double_blocks.0.img_qkv.weight");
    expect(rows).toMatchObject({ shape: [3, 36], data: data.slice(36 * 36, 39 * 36) });
    const lists = await openSafetensors(bytesSource(safetensorsBytes(tree), "flax"));
    expect(
      miniT2IFamily.original!.open(miniT2IFamily.original!.weights!(lists), () => {
        throw new Error("no preset is needed");
      }).config.meanFlow,
    ).toEqual({ context: 8, guidance: 4, interval: 2, time: 4 });
  });
});

/** The path of a parameter in the tree of Flax, from its name in PyTorch. */
function flaxPath(name: string, { shape }: NdArray): string {
  const inTree = name.replaceAll(/\.(\d+)(?=\.)/g, ".layers_$1").replaceAll(".", "/");
  if (/token(s)?$/.test(name)) return `net/${inTree}/_flax_param/param_tensor`;
  if (shape.length === 4 || name.startsWith("img_embedder"))
    return `net/${inTree.replace("/weight", "/kernel")}`;
  const kind = shape.length === 1 && name.endsWith(".weight") ? "rmsnorm" : "linear";
  return `net/${inTree.replace(/\/(weight|bias)$/, (_, part: string) => `/_flax_${kind}/${part === "bias" ? "bias" : "kernel"}`)}`;
}

it("a mean-flow network asks for its step", () => {
  const inputs = {
    x: input("x", [batch, 3, 32, 32]),
    t: input("t", [batch]),
    y: input("y", [batch, 4, 1024]),
  };
  expect(() => miniT2I(createParams(), inputs, miniT2IPresets["MiniT2I-B/16-MF"])).toThrow(
    "give the span as `step`",
  );
});
