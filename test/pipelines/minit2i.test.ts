import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { combine } from "../../src/diffusion/arrays.ts";
import { type NdArray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { full, input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { fork, normal, randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../../src/engine/runtime/stored-weight.ts";
import { miniT2I } from "../../src/models/minit2i/minit2i.ts";
import { miniT2IConfig } from "../../src/models/minit2i/checkpoint.ts";
import { createParams } from "../../src/nn/params.ts";
import { openModel, openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished, imagePipeline } from "../../src/pipelines/pipeline.ts";
import { picturesOf } from "../../src/pictures/picture.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { networkPresets, traceNetwork } from "../../src/models/network.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { smallModels, writeSmallSplit } from "../support/flux-folders.ts";
import {
  miniT2IWeights,
  randomWeights,
  tinyMiniT2I,
  writeMiniT2IFolder,
} from "../support/minit2i.ts";
import { watchedBackend } from "../support/watched-backend.ts";

const folder = mkdtempSync(path.join(tmpdir(), "patchwise-minit2i-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeAll(() => writeMiniT2IFolder(folder, tinyMiniT2I));

const request = { prompt: "a red cat", seed: 3, steps: 3, guidance: 2.5 };

it("a folder draws what its formulas say, and reads each text once", async () => {
  const { backend, asked } = watchedBackend();
  const pipeline = imagePipeline(await openModel(folder), backend);
  const [picture] = await finished(pipeline.generate(request));
  await finished(pipeline.generate({ ...request, seed: 4 }));
  await pipeline.dispose();
  const texts = asked.filter((inputs) => inputs["y"]);
  const [{ y, mask }, none] = texts as [Record<"y" | "mask", NdArray>, Record<string, NdArray>];
  expect(texts).toHaveLength(2);
  expect(new Set(toNumbers(mask))).toEqual(new Set([0, 1]));
  expect(new Set(toNumbers(none["mask"]!))).toEqual(new Set([0]));
  expect(asked.filter((inputs) => inputs["x"])).toHaveLength(6);

  const predict = await wholeNetwork();
  let x: NdArray = combine([2, normal(fork(randomKey(3), "start"), [1, 3, 16, 16])]);
  for (const time of [0, 1 / 3, 2 / 3]) {
    const [conditional, unconditional] = [
      await predict({ x, y, mask }),
      await predict({ x, y, mask: none["mask"]! }),
    ];
    const x0 = combine([2.5, conditional], [1 - 2.5, unconditional]);
    const step = 1 / 3 / (1 - time);
    x = combine([1 - step, x], [step, x0]);
  }
  const [want] = picturesOf(x);
  const apart = picture!.pixels.map((value, i) => Math.abs(value - want!.pixels[i]!));
  expect(Math.max(...apart)).toBeLessThanOrEqual(1);
  expect(new Set(picture!.pixels).size).toBeGreaterThan(20);
});

/** The network with the text's part in it. */
async function wholeNetwork() {
  const params = createParams();
  const leaves = {
    x: input("x", [batch, 3, 16, 16]),
    y: input("y", [batch, 12, 32]),
    mask: input("mask", [batch, 12], "bool"),
  };
  const config = miniT2IConfig(fieldReader("transformer", tinyMiniT2I.transformer));
  const output = miniT2I(params, { ...leaves, t: full([], 0) }, config);
  const weights = arrayWeights(miniT2IWeights(tinyMiniT2I));
  const program = await nodeBackend("cpu").compile(graphOf({ output }), { weights });
  return async (inputs: Record<string, NdArray>) => (await program.run(inputs))["output"]!;
}

it("a folder's interval of guidance survives JSON, and one option switches it off", async () => {
  const own = path.join(folder, "interval");
  const transformer = { ...tinyMiniT2I.transformer, cfg_interval: [0, 0.5] };
  await writeMiniT2IFolder(own, { ...tinyMiniT2I, transformer });
  await using everywhere = await openPipeline(folder);
  await using inside = await openPipeline(own);
  const settings = inside.settings(request);
  const { guidanceInterval } = settings;
  expect(JSON.parse(JSON.stringify(guidanceInterval))).toEqual(guidanceInterval);
  const [wanted] = await finished(everywhere.generate(request));
  const [drawn] = await finished(inside.generate(request));
  const [again] = await finished(inside.generate({ ...request, guidanceInterval }));
  const [off] = await finished(inside.generate({ ...request, guidanceInterval: [0, 1e9] }));
  expect(drawn!.pixels).not.toEqual(wanted!.pixels);
  expect(again!.pixels).toEqual(drawn!.pixels);
  expect(off!.pixels).toEqual(wanted!.pixels);
});

it("a folder says how it is drawn, and what it lacks", async () => {
  const model = await openModel(folder);
  const { process, defaults, network } = model;
  await model.close();
  expect(defaults).toEqual({ steps: 4, guidance: 6 });
  expect(process.levels(4, { size: [16, 16] }).map(({ sigma }) => sigma)).toEqual([
    1, 0.75, 0.5, 0.25, 0,
  ]);
  expect(network.size).toEqual([16, 16]);
  rmSync(path.join(folder, "text_encoder"), { recursive: true });
  await expect(openModel(folder)).rejects.toThrow('there is no "text_encoder/config.json"');
});

it("the file of a mean flow draws in four steps, of which the network is told", async () => {
  const own = path.join(folder, "mean-flow");
  await writeSmallSplit(own, smallModels.miniT2I);
  const meanFlow = { context: 2, guidance: 2, interval: 1, time: 1 };
  const { transformer } = smallModels.miniT2I;
  const config = miniT2IConfig(fieldReader("transformer", transformer));
  const { params } = traceNetwork({ kind: "minit2i", ...config, meanFlow });
  const file = path.join(own, "diffusion_models/minit2i.safetensors");
  await writeSafetensors(file, Object.entries(randomWeights(params, 1)));
  const { backend, asked } = watchedBackend();
  const pipeline = imagePipeline(await openModel(own), backend);
  const given = { prompt: "a red cat", seed: 3, width: 32, height: 32 };
  const [picture] = await finished(pipeline.generate(given));
  expect(pipeline.settings(given)).toMatchObject({ steps: 4, guidance: 12 });
  await expect(finished(pipeline.generate({ ...given, negativePrompt: "a dog" }))).rejects.toThrow(
    "guides itself and never draws without its condition",
  );
  await pipeline.dispose();
  expect(new Set(picture!.pixels).size).toBeGreaterThan(20);
  const told = asked.filter((inputs) => inputs["x"]);
  const numbers = (name: string) => told.flatMap((inputs) => toNumbers(inputs[name]!));
  expect(numbers("span")).toEqual([0.25, 0.25, 0.25, 0.25]);
  expect(numbers("guidance")).toEqual([12, 12, 12, 12]);
  expect([numbers("from")[0], numbers("to")[0]]).toEqual([
    expect.closeTo(0.2),
    expect.closeTo(0.8),
  ]);
  // The text is read with each step, so there is no part of the network for it alone.
  expect(asked.filter((inputs) => inputs["y"] && !inputs["x"])).toEqual([]);
});

it("does not take another number of tokens, in which it was not trained", async () => {
  const own = path.join(folder, "tokens");
  await writeSmallSplit(own, smallModels.miniT2I);
  await expect(openModel(own, { promptTokens: 24 })).rejects.toThrow(
    "--prompt-tokens (promptTokens) is 24, but minit2i reads 256 tokens of a prompt",
  );
});

it("the config of the published L/16 in diffusers' layout is that of its file", () => {
  const published = {
    hidden_size: 1248,
    txt_hidden_size: 1248,
    cond_vec_size: 1248,
    num_heads: 24,
    head_dim: 52,
    depth_double: 23,
    mlp_ratio: 2.7,
  };
  const config = miniT2IConfig(fieldReader("transformer", published));
  expect({ kind: "minit2i", ...config }).toEqual(networkPresets().get("MiniT2I-L/16"));
});
