import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { oneSentence, patchwise } from "../support/cli.ts";
import { writeDiffusersDiT, writeOriginalDiT } from "../support/model-folders.ts";
import { writeTrained } from "../support/trained-folder.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-info-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

beforeAll(async () => {
  await writeTrained(at("classes"));
  await writeDiffusersDiT(at("diffusers"));
  await writeOriginalDiT(at("dit.safetensors"));
  writeFileSync(at("garden.yaml"), "data:\n  path: garden\n");
});

const info = (...args: string[]) => patchwise(["info", ...args]);

/** The memory that the process takes without a model. */
const PROCESS = 128 * 2 ** 20;

describe("patchwise info", () => {
  it("prints one JSON object and nothing else with --json", () => {
    const { code, out, err } = info("DiT-S/2", "--json");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const costs = JSON.parse(out);
    expect(costs).toEqual({
      family: "DiT",
      parameters: 32_865_056,
      gflops: expect.closeTo(6.0581, 4),
      tokens: 256,
      memory_bytes: expect.any(Number),
      least_memory_bytes: expect.any(Number),
      stages: [{ name: "the network", parameters: 32_865_056, memory_bytes: costs.memory_bytes }],
    });
    expect(costs.least_memory_bytes / costs.memory_bytes).toBeCloseTo(1, 1);
    // Weights in float32, and activations that are small beside them.
    const own = costs.memory_bytes - PROCESS;
    expect(own / (4 * costs.parameters)).toBeGreaterThan(1);
    expect(own / (4 * costs.parameters)).toBeLessThan(1.2);
  });

  it("counts for another size", () => {
    const { tokens, memory_bytes } = JSON.parse(info("DiT-S/2", "--size", "64x32", "--json").out);
    expect(tokens).toBe(32 * 16);
    expect(memory_bytes).toBeGreaterThan(JSON.parse(info("DiT-S/2", "--json").out).memory_bytes);
    const { code, err } = info("DiT-S/2", "--size", "33");
    expect(code).toBe(2);
    expect(err).toMatch(/DiT-S\/2 cannot draw 33×33 pixels/);
  });

  it.each([
    ["CLIP-L", 123_650_304, 77],
    ["CLIP-G", 694_659_840, 77],
    ["T5-XXL", 4_762_310_656, 512],
  ])("counts the text encoder %s by itself", (name, parameters, tokens) => {
    const { code, out } = info(name, "--json");
    expect(code).toBe(0);
    const costs = JSON.parse(out);
    expect(costs).toMatchObject({ parameters, tokens, stages: [{ name, parameters }] });
    expect(costs.memory_bytes).toBeGreaterThan(4 * parameters);
    expect(info("CLIP-L").out).toMatch(/one text\)\n.*\n {2}memory +\d+ MiB to read one text\n$/);
  });

  it("prints one line per cost", () => {
    const { code, out } = info("DiT-S/8");
    expect(code).toBe(0);
    expect(out).toMatch(
      /^DiT-S\/8\n {2}family +DiT\n {2}parameters +33,142,016\n {2}Gflops +0\.36 .*\n {2}tokens +16\n {2}memory +\d+ MiB to draw one picture\n$/,
    );
  });

  it("counts the same for a network in any layout, and a decoder's memory", () => {
    const costs = (...args: string[]) => JSON.parse(info(...args, "--json").out);
    const diffusers = costs(at("diffusers"));
    const original = costs(at("dit.safetensors"));
    const { memory_bytes, least_memory_bytes, stages, defaults, ...counts } = original;
    // The original's code draws in 250 steps; without an autoencoder, the size in pixels is not known.
    expect(defaults).toEqual({ steps: 250, guidance: 4, sampler: "ddpm" });
    expect(diffusers.defaults).toMatchObject({ width: 8, height: 8, steps: 50 });
    expect(diffusers).toMatchObject(counts);
    expect(diffusers.stages[0]).toEqual(stages[0]);
    expect(diffusers.least_memory_bytes).toBeGreaterThanOrEqual(least_memory_bytes);
    expect(counts).toMatchObject({ tokens: 4 });
    expect(diffusers.memory_bytes).toBeGreaterThan(memory_bytes);
    const { defaults: own, ...joined } = costs(at("dit.safetensors"), "--vae", at("diffusers/vae"));
    const { defaults: _, ...whole } = diffusers;
    expect(joined).toEqual(whole);
    expect(own).toMatchObject({ width: 8, height: 8, steps: 250 });
  });

  it("counts a trained folder", () => {
    const { code, out } = info(at("classes"), "--json");
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ tokens: 4 });
  });

  it.each([
    [
      "DiT-LX/2",
      /There is no model "DiT-LX\/2", nor a folder or file of that name; the nearest are DiT-L\/2, /,
    ],
    [
      "nothing-alike",
      /There is no model "nothing-alike", .*; the bundled ones are .*emoji.*, and patchwise info --help lists the presets/,
    ],
    [
      at("garden.yaml"),
      /garden\.yaml looks like the config of a training, which holds no model; train it with patchwise train \S*garden\.yaml, and give the folder that it writes\.$/m,
    ],
    ["test", /test holds neither a model\.json/],
    ["package.json", /package\.json is not a model file of a known kind/],
  ])("refuses %s with a one-line error", (name, sentence) => {
    const { code, out, err } = info(name);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(oneSentence);
    expect(err).toMatch(sentence);
  });
});
