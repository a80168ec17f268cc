import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeight, arrayWeights } from "../../src/engine/runtime/stored-weight.ts";
import type { NetworkConfig } from "../../src/models/index.ts";
import { keyedNoise } from "../../src/diffusion/noise.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { picturesOf } from "../../src/pictures/picture.ts";
import { type Exported, exportGraph } from "../../src/pipelines/export-node.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { decoderGraph, networkGraph, tracedForDrawing } from "../../src/pipelines/image-model.ts";
import type { ImageModel } from "../../src/pipelines/image-model.ts";
import { openModel, openPipeline } from "../../src/pipelines/open/open-node.ts";
import { readStored } from "../../src/weights/stored-node.ts";
import { randomArray } from "../support/arrays.ts";
import { patchwise } from "../support/cli.ts";
import { writeDiffusersDiT } from "../support/model-folders.ts";
import {
  randomWeights,
  tinyMovingNetwork,
  tinyNetwork,
  tinyTextNetwork,
} from "../support/tiny-model.ts";
import { writeTrained } from "../support/trained-folder.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-export-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
const models: ImageModel[] = [];
afterAll(async () => {
  for (const model of models) await model.close();
  rmSync(scratch, { recursive: true, force: true });
});

let classes: ImageModel;
let prompts: ImageModel;
let latents: ImageModel;
beforeAll(async () => {
  await writeTrained(at("classes"));
  await writeTrained(at("prompts"), tinyTextNetwork);
  await writeDiffusersDiT(at("latents"));
  classes = await openModel(at("classes"));
  prompts = await openModel(at("prompts"));
  latents = await openModel(at("latents"));
  models.push(classes, prompts, latents);
});

/** What ONNX Runtime itself makes of a file. */
async function runFile(file: string, inputs: Readonly<Record<string, NdArray>>) {
  const session = await InferenceSession.create(file);
  const feeds = Object.entries(inputs).map(([name, { dtype, data, shape }]) => [
    name,
    new Tensor(dtype as "float32", data as Float32Array, shape),
  ]);
  const results = await session.run(Object.fromEntries(feeds));
  await session.release();
  return Object.values(results)[0]!.data as Float32Array;
}

/** What the pipeline's own program makes of the same. */
async function runHere(model: ImageModel, inputs: Readonly<Record<string, NdArray>>) {
  const program = await nodeBackend("cpu").compile(networkGraph(model.network), model);
  const { output } = await program.run(inputs);
  await program.dispose();
  return output!.data as Float32Array;
}

function farthest(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}

const image = {
  x: randomArray(1, "float32", [2, 3, 8, 8]),
  t: randomArray(2, "float32", [2], 0, 999),
};
const ofClass = { ...image, y: randomArray(3, "int64", [2], 0, 4) };
const ofText = {
  ...image,
  ids: randomArray(4, "int64", [2, 4], 0, 10),
  mask: randomArray(5, "bool", [2, 4], 1, 2),
  drop: randomArray(6, "bool", [2], 0, 2),
};

describe("an exported network", () => {
  it("computes the same in ONNX Runtime as the pipeline's program", async () => {
    const exported = await exportGraph(
      networkGraph(classes.network),
      classes.weights,
      at("a.onnx"),
    );
    expect(exported).toEqual({
      metadata: {},
      files: [at("a.onnx")],
      inputs: [
        { name: "x", dtype: "float32", shape: "[B, 3, 8, 8]" },
        { name: "t", dtype: "float32", shape: "[B]" },
        { name: "y", dtype: "int64", shape: "[B]" },
      ],
      outputs: [{ name: "output", dtype: "float32", shape: "[B, 3, 8, 8]" }],
    });
    const got = await runFile(at("a.onnx"), ofClass);
    expect(farthest(got, await runHere(classes, ofClass))).toBeLessThan(1e-5);
  });

  it("takes a text as tokens", async () => {
    const { inputs } = await exportGraph(
      networkGraph(prompts.network),
      prompts.weights,
      at("text.onnx"),
    );
    expect(inputs.map(({ name }) => name).toSorted()).toEqual(["drop", "ids", "mask", "t", "x"]);
    const got = await runFile(at("text.onnx"), ofText);
    expect(farthest(got, await runHere(prompts, ofText))).toBeLessThan(1e-5);
  });

  it("of clips that move takes where in a longer one they begin", async () => {
    await writeTrained(at("moving"), tinyMovingNetwork);
    const moving = await openModel(at("moving"));
    models.push(moving);
    const file = at("moving.onnx");
    const { inputs } = await exportGraph(networkGraph(moving.network), moving.weights, file);
    const names = ["drop", "ids", "mask", "start", "t", "x"];
    expect(inputs.map(({ name }) => name).toSorted()).toEqual(names);
    const x = randomArray(7, "float32", [2, 3, 2, 8, 8]);
    const of = (start: number) => ({
      ...ofText,
      x,
      start: ndarray("float32", [2], [start, start]),
    });
    const got = await runFile(file, of(1));
    expect(farthest(got, await runHere(moving, of(1)))).toBeLessThan(1e-5);
    // Its motions repeat after three frames.
    expect(farthest(got, await runFile(file, of(4)))).toBeLessThan(1e-5);
    expect(farthest(got, await runFile(file, of(2)))).toBeGreaterThan(1e-3);
  });

  it("has a separate weights file if they exceed one protobuf message", async () => {
    const graph = networkGraph(classes.network);
    const { files } = await exportGraph(graph, classes.weights, at("big.onnx"), { inside: 1000 });
    expect(files).toEqual([at("big.onnx"), at("big.onnx.data")]);
    expect(statSync(at("big.onnx.data")).size).toBeGreaterThan(statSync(at("big.onnx")).size);
    const got = await runFile(at("big.onnx"), ofClass);
    expect(farthest(got, await runHere(classes, ofClass))).toBeLessThan(1e-5);
  });

  it("is half as large in float16, with nearly the same output", async () => {
    const graph = networkGraph(classes.network);
    await exportGraph(graph, classes.weights, at("whole.onnx"));
    await exportGraph(graph, classes.weights, at("half.onnx"), { half: true });
    expect(statSync(at("half.onnx")).size / statSync(at("whole.onnx")).size).toBeLessThan(0.65);
    const [whole, half] = [
      await runFile(at("whole.onnx"), ofClass),
      await runFile(at("half.onnx"), ofClass),
    ];
    const largest = Math.max(...whole.map(Math.abs));
    expect(farthest(whole, half) / largest).toBeLessThan(0.01);
  });

  it("keeps weights beyond float16's range in float32", async () => {
    const key = "final_layer.linear.bias";
    const own = (await readStored(classes.weights(key)!)) as NdArray<"float32">;
    const large = arrayWeight({
      ...own,
      data: own.data.map((value, i) => (i === 0 ? 1e5 : value)),
    });
    const weights = (name: string) => (name === key ? large : classes.weights(name));
    await exportGraph(networkGraph(classes.network), weights, at("large.onnx"), { half: true });
    const got = await runFile(at("large.onnx"), ofClass);
    expect(got.every((value) => Number.isFinite(value))).toBe(true);
    expect(Math.max(...got)).toBeGreaterThan(65_520);
  });

  it("has no operators but the standard's if it is plain, with the same output", async () => {
    await exportGraph(networkGraph(classes.network), classes.weights, at("fused.onnx"));
    await exportGraph(networkGraph(classes.network), classes.weights, at("plain.onnx"), {
      plain: true,
    });
    const domain = (file: string) => readFileSync(at(file), "latin1").includes("com.microsoft");
    expect(domain("fused.onnx")).toBe(true);
    expect(domain("plain.onnx")).toBe(false);
    const got = await runFile(at("plain.onnx"), ofClass);
    expect(farthest(got, await runHere(classes, ofClass))).toBeLessThan(1e-5);
  });

  it("is drawn with by the sampler of the guide, as generate draws", async () => {
    const guide = readFileSync("docs/onnx.md", "utf8");
    symlinkSync(path.resolve("node_modules"), at("node_modules"));
    writeFileSync(at("sampler.mjs"), /^```js\n([^]*?)^```/m.exec(guide)![1]!);
    const run = patchwise(["export", at("classes"), "--out", at("drawn.onnx"), "--json"]);
    const exported = JSON.parse(run.out) as Exported;
    const dims = [3, 8, 8];
    const noise = keyedNoise([randomKey(5)])("start", [1, ...dims]).data as Float32Array;
    const { draw } = (await import(at("sampler.mjs"))) as {
      draw: (...given: readonly unknown[]) => Promise<Float32Array>;
    };
    const values = await draw(at("drawn.onnx"), exported, 2, dims, Float32Array.from(noise));
    const pipeline = await openPipeline(at("classes"));
    const [picture] = await finished(pipeline.generate({ class: 2, seed: 5 }));
    await pipeline.dispose();
    const [own] = picturesOf({ dtype: "float32", shape: [1, ...dims], data: values });
    const most = own!.pixels.reduce(
      (a, value, i) => Math.max(a, Math.abs(value - picture!.pixels[i]!)),
      0,
    );
    expect(most).toBeLessThanOrEqual(1);
  });

  it("names its norms as ONNX does", async () => {
    const norm = { kind: "rms", affine: false, epsilon: 1e-6 } as const;
    const network = { ...tinyNetwork, norm } as NetworkConfig;
    const weights = arrayWeights(randomWeights(network));
    await exportGraph(networkGraph(network), weights, at("rms.onnx"));
    const text = readFileSync(at("rms.onnx"), "latin1");
    expect(text).toContain("RMSNormalization");
    expect(text).not.toContain("SimplifiedLayerNormalization");
    const got = await runFile(at("rms.onnx"), ofClass);
    expect(farthest(got, await runHere({ ...classes, network, weights }, ofClass))).toBeLessThan(
      1e-5,
    );
  });

  it("runs if its weights are joined from several files", async () => {
    const { output } = tracedForDrawing(latents.network, [8, 4]);
    await exportGraph(graphOf({ output }), latents.weights, at("joined.onnx"));
    const x = randomArray(1, "float32", [1, 4, 8, 4]);
    const got = await runFile(at("joined.onnx"), {
      x,
      t: randomArray(2, "float32", [1], 0, 999),
      y: randomArray(3, "int64", [1], 0, 4),
    });
    expect(got).toHaveLength(8 * 8 * 4);
  });
});

describe("an exported decoder", () => {
  it("decodes latents to pixels", async () => {
    const decoder = latents.decoder!;
    await exportGraph(decoderGraph(decoder, [4, 4]), decoder.weights, at("decoder.onnx"));
    const got = await runFile(at("decoder.onnx"), {
      latents: randomArray(1, "float32", [2, 4, 4, 4]),
    });
    expect(got).toHaveLength(2 * 3 * 8 * 8);
  });
});

describe("patchwise export", () => {
  it("refuses a name that says something else", () => {
    expect(patchwise(["export", at("classes"), "--out", at("c.txt")])).toEqual({
      code: 2,
      out: "",
      err: `patchwise: --out is ${JSON.stringify(at("c.txt"))}; give a name that ends in .onnx.\n`,
    });
  });

  it("writes a file and prints its inputs and outputs", () => {
    const { code, out, err } = patchwise([
      "export",
      at("classes"),
      "--out",
      at("c.onnx"),
      "--size",
      "12x8",
    ]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toBe(
      `${at("c.onnx")}\n  takes  x float32 [B, 3, 8, 12]\n  takes  t float32 [B]\n  takes  y int64 [B]\n  gives  output float32 [B, 3, 8, 12]\n`,
    );
  });

  it.each([
    ["no file to write", ["classes"], /required option '--out/],
    ["parts of patches", ["classes", "--out", "x.onnx", "--size", "7"], /multiples of 4/],
    ["an unknown part", ["classes", "--out", "x.onnx", "--part", "head"], /--part is "head"/],
    ["a decoder of pixels", ["classes", "--out", "x.onnx", "--part", "decoder"], /no decoder/],
    ["no model", ["nothing", "--out", "x.onnx"], /no model "nothing"/],
  ])("refuses %s", (_, args, sentence) => {
    const before = readdirSync(scratch);
    const { code, err } = patchwise(["export", ...args], scratch);
    expect(err).toMatch(sentence);
    expect(code).toBe(2);
    expect(readdirSync(scratch)).toEqual(before);
  });
});
