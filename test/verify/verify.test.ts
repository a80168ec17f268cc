import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { type NdArray, ndarray } from "../../src/engine/arrays/ndarray.ts";
import { rand, torchGenerator } from "../../src/engine/random/torch-random.ts";
import type { Recording } from "../../src/verify/recording.ts";
import { parseConfig } from "../../src/verify/recording.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { type RecordingReport, verifyRecording } from "../../src/verify/verify.ts";
import { bytesSource, openSafetensors, safetensorsBytes } from "../../src/weights/index.ts";
import { writeSafetensors } from "../../src/weights/index-node.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-verify-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** No family here runs a graph. */
const again = (recorded: Recording): Promise<RecordingReport> =>
  verifyRecording(recorded, () => Promise.reject(new Error("no runtime is needed")));

/** A recording in memory. */
async function recording(
  tensors: Record<string, NdArray>,
  config: object = { family: "torch_rng", tolerance: { atol: 1e-5 } },
): Promise<Recording> {
  const io = await openSafetensors(bytesSource(safetensorsBytes(Object.entries(tensors)), "io"));
  const parsed = parseConfig(JSON.stringify(config), "config.json");
  return { name: "it", config: parsed, io, model: undefined, gradients: undefined };
}

async function verify(tensors: Record<string, NdArray>, config?: object): Promise<RecordingReport> {
  return again(await recording(tensors, config));
}

const five = rand(torchGenerator(3), [5]);

describe("recordings of PyTorch", () => {
  it.each([
    ["torch_rng", 42],
    ["torch_rng_wide", 276],
  ])("%s is reproduced", async (folder, outputs) => {
    const report = await withRecording(path.join(fixtures, folder), again);
    expect(report).toMatchObject({ ok: true, family: "torch_rng" });
    expect(report.outputs).toHaveLength(outputs);
  });

  it("are reproduced bit for bit", async () => {
    const report = await withRecording(path.join(fixtures, "torch_rng"), again);
    expect(report.outputs.filter((output) => output.max_error !== 0)).toEqual([]);
  });
});

describe("verifyRecording", () => {
  it("reports the error of an output", async () => {
    const data = five.data.map((x, i) => (i === 2 ? x + 0.5 : x));
    const report = await verify({ "rand.seed3.5": ndarray("float32", [5], data) });
    expect(report.ok).toBe(false);
    expect(report.outputs[0]).toMatchObject({ name: "rand.seed3.5", tolerance: 1e-5, ok: false });
    expect(report.outputs[0]!.max_error).toBeCloseTo(0.5, 6);
  });

  it("fails NaN, and reports null as its error", async () => {
    const data = five.data.map((x, i) => (i === 2 ? NaN : x));
    const report = await verify({ "rand.seed3.5": ndarray("float32", [5], data) });
    expect(report.outputs).toEqual([
      {
        name: "rand.seed3.5",
        max_error: null,
        tolerance: 1e-5,
        ok: false,
        reason: "NaN among the 5 elements",
      },
    ]);
  });

  it("fails a shape that differs from the name", async () => {
    const report = await verify({ "rand.seed3.1x5": five });
    expect(report.outputs[0]).toMatchObject({
      ok: false,
      reason: "shape is [1, 5], but [5] was recorded",
    });
  });

  it("compares integers exactly for any tolerance", async () => {
    const report = await verify(
      { "randint1.seed0.2": ndarray("int64", [2], [0, 1]) },
      { family: "torch_rng", tolerance: { atol: 10 } },
    );
    expect(report.outputs[0]).toMatchObject({ max_error: 1, tolerance: 0, ok: false });
  });

  it("needs a tolerance for floats, but not for integers", async () => {
    const config = { family: "torch_rng", tolerance: { rule: "exact" } };
    const zeros = ndarray("int64", [2], [0, 0]);
    expect((await verify({ "randint1.seed0.2": zeros }, config)).ok).toBe(true);
    await expect(verify({ "rand.seed3.5": five }, config)).rejects.toThrow(
      'it has no "tolerance.atol" in its config.json, but "rand.seed3.5" needs one',
    );
  });

  it.each(["dit5", "__proto__", "toString"])(
    "lists the families for the unknown family %s",
    async (family) => {
      await expect(verify({ y: five }, { family, tolerance: {} })).rejects.toThrow(
        `it has the unknown family "${family}"; known are torch_rng`,
      );
    },
  );

  it.each([{}, { "in.x": five }])("refuses a recording without outputs", async (tensors) => {
    await expect(verify(tensors)).rejects.toThrow("it has no recorded outputs in io; record");
  });
});

describe("the tensor names of the family torch_rng", () => {
  it("separates bounds and shape in a name by the recorded shape", async () => {
    const zeros = ndarray("int64", [20], new BigInt64Array(20));
    const report = await verify({
      "sequence.seed3.1_rand5": five,
      "sequence.seed3.2_randint120": zeros,
      "sequence.seed3.3_randint0_1_20": zeros,
    });
    expect(report.ok).toBe(true);
  });

  it.each([
    ["rand5", /The tensor name "rand5" of shape \[5\] is not valid/],
    ["rand.seed0.5y", /is not valid/],
    ["sequence.seed0.1_rand6", /is not valid/],
    ["laplace.seed0.5", /names the function "laplace" and the shape \[5\]; known are rand,/],
    ["randint0.seed0.5", /^randint was asked for integers from 0 up to, but not including, 0/],
    ["rand.seed99999999999999999999.5", /^The seed 99999999999999999999 does not fit/],
  ])("refuses %s", async (name, message) => {
    await expect(verify({ [name]: five })).rejects.toThrow(message);
  });

  it("refuses a sequence with a gap", async () => {
    const tensors = { "sequence.seed3.1_rand5": five, "sequence.seed3.3_rand5": five };
    await expect(verify(tensors)).rejects.toThrow(
      "sequence.seed3 has tensor 3 in place of tensor 2",
    );
  });
});

describe("parseConfig", () => {
  const good = { family: "torch_rng", tolerance: { atol: 0 } };

  it("keeps the fields that families need", () => {
    const config = { ...good, weights_from: "../dit", args: { depth: 2 } };
    expect(parseConfig(JSON.stringify(config), "c")).toMatchObject({
      family: "torch_rng",
      atol: 0,
      weightsFrom: "../dit",
      fields: { args: { depth: 2 } },
    });
  });

  it.each([
    ['{"family":\n}', /^c is not valid JSON \([^\n]*\); correct it\.$/],
    ["[]", /^c is not a JSON object/],
    ["null", /^c is not a JSON object/],
    ['{"tolerance": {}}', /^c has no "family"/],
    ['{"family": 5, "tolerance": {}}', /^c has no "family"/],
    ['{"family": "x"}', /^c has no "tolerance"/],
    ['{"family": "x", "tolerance": 1}', /^c has no "tolerance"/],
    ['{"family": "x", "tolerance": {"atol": -1}}', /^c has the "tolerance.atol" -1/],
    ['{"family": "x", "tolerance": {"atol": "1"}}', /^c has the "tolerance.atol" "1"/],
    ['{"family": "x", "tolerance": {"atol": 1e999}}', /^c has the "tolerance.atol" null/],
    ['{"family": "x", "tolerance": {}, "weights_from": 1}', /^c has the "weights_from" 1/],
  ])("refuses %s", (text, message) => {
    expect(() => parseConfig(text, "c")).toThrow(FormatError);
    expect(() => parseConfig(text, "c")).toThrow(message);
  });
});

describe("withRecording", () => {
  async function folder(name: string, files: Record<string, object | NdArray>): Promise<string> {
    const directory = path.join(scratch, name);
    mkdirSync(directory, { recursive: true });
    for (const [file, content] of Object.entries(files)) {
      const target = path.join(directory, file);
      if (file.endsWith(".json")) writeFileSync(target, JSON.stringify(content));
      else await writeSafetensors(target, [["out.y", content as NdArray]]);
    }
    return directory;
  }
  const config = { family: "dit", tolerance: { atol: 1e-4 } };

  it("opens weights and gradients if they exist", async () => {
    const files = { "config.json": config, "io.safetensors": five };
    const bare = await folder("bare", files);
    await withRecording(bare, async ({ name, model, gradients }) => {
      expect([name, model, gradients]).toEqual(["bare", undefined, undefined]);
    });
    const full = await folder("full", {
      ...files,
      "weights.safetensors": five,
      "grads.safetensors": five,
    });
    await withRecording(full, async ({ model, gradients }) => {
      expect((await model!.weights.read("out.y")).data).toEqual(five.data);
      expect(model!.config.family).toBe("dit");
      expect([...gradients!.entries.keys()]).toEqual(["out.y"]);
    });
  });

  it("reads weights and their config from the folder in weights_from", async () => {
    const args = { depth: 3 };
    await folder("lender", { "config.json": { ...config, args }, "weights.safetensors": five });
    const borrower = await folder("borrower", {
      "config.json": { ...config, family: "dit_diffusion", weights_from: "../lender" },
      "io.safetensors": five,
    });
    await withRecording(borrower, async (opened) => {
      expect(opened.config.family).toBe("dit_diffusion");
      expect(opened.model!.config.fields["args"]).toEqual(args);
      expect((await opened.model!.weights.read("out.y")).data).toEqual(five.data);
    });
  });

  it.each(["/etc", "../../elsewhere", "..", "../other/../../elsewhere"])(
    "does not follow weights_from to %s",
    async (target) => {
      const from = await folder("led-astray", {
        "config.json": { ...config, weights_from: target },
        "io.safetensors": five,
      });
      await expect(withRecording(from, async () => {})).rejects.toThrow(
        `takes its weights from "${target}"; name a folder beside this one`,
      );
    },
  );

  it("names a missing folder in weights_from", async () => {
    const from = await folder("alone", {
      "config.json": { ...config, weights_from: "../gone" },
      "io.safetensors": five,
    });
    await expect(withRecording(from, async () => {})).rejects.toThrow(
      /takes its weights from "\.\.\/gone", but there is no .*gone\/weights\.safetensors/,
    );
  });

  it("names a missing file", async () => {
    const empty = await folder("empty", {});
    await expect(withRecording(empty, async () => {})).rejects.toThrow(
      /^Cannot read .*empty\/config\.json.*ENOENT/,
    );
    await folder("empty", { "config.json": config });
    await expect(withRecording(empty, async () => {})).rejects.toThrow(
      /^Cannot open .*empty\/io\.safetensors.*ENOENT/,
    );
  });

  it("names a truncated file", async () => {
    const cut = path.join(scratch, "cut");
    cpSync(path.join(fixtures, "torch_rng"), cut, { recursive: true });
    const io = path.join(cut, "io.safetensors");
    writeFileSync(io, readFileSync(io).subarray(0, 9000));
    await expect(withRecording(cut, again)).rejects.toThrow(/cut\/io\.safetensors/);
  });
});
