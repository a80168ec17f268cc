import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Drawer, pipelineDrawer } from "../../src/bulk/drawer.ts";
import { pictureFolder, removeUnfinished } from "../../src/bulk/folder.ts";
import { promptLines } from "../../src/bulk/lines.ts";
import { modelDigest } from "../../src/pipelines/open/model-digest-node.ts";
import { drawLines } from "../../src/bulk/run.ts";
import { keepModel } from "../../src/bulk/same-model.ts";
import { plannedLines } from "../../src/bulk/tasks.ts";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import type { Pipeline } from "../../src/pipelines/pipeline.ts";
import { tinyTextNetwork } from "../support/tiny-model.ts";
import { writeTrained } from "../support/trained-folder.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-bulk-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
const by = { model: "model", version: "0" };
let pipeline: Pipeline;
let drawer: Drawer;
beforeAll(async () => {
  await writeTrained(at("model"), tinyTextNetwork);
  pipeline = await openPipeline(at("model"));
  drawer = pipelineDrawer(pipeline, 4);
});
afterAll(async () => {
  await drawer.close();
  rmSync(scratch, { recursive: true, force: true });
});

async function drawInto(folder: string, lines: readonly object[], with_ = drawer) {
  if (folder !== "nowhere") mkdirSync(at(folder), { recursive: true });
  const text = lines.map((line) => JSON.stringify(line)).join("\n");
  const planned = plannedLines(promptLines(text, "a.jsonl", { steps: 2 }), pipeline, by);
  const run = await drawLines(planned.tasks, with_, pictureFolder(at(folder)), { by });
  return { ...run, failures: [...planned.failures, ...run.failures] };
}

const lines = [
  { prompt: "a red cat", seed: 7, name: "cat" },
  { prompt: "blue dog", negative: "moon", guidance: 3 },
  { prompt: "the moon", size: "16x8", steps: 3 },
  { prompt: "on the moon" },
];

describe("drawing lines", () => {
  it("draws next time only what is missing or has changed", async () => {
    expect(await drawInto("out", lines)).toMatchObject({ kept: 0, drawn: 4, failures: [] });
    const names = ["000002.png", "000003.png", "000004.png", "cat.png"];
    expect(readdirSync(at("out")).toSorted()).toEqual(names);
    const before = names.map((name) => statSync(at("out", name)).mtimeMs);
    rmSync(at("out", "000004.png"));
    writeFileSync(at("out", ".cat.png.0123456789ab.tmp"), "half");
    await removeUnfinished(at("out"));
    const changed = lines.with(0, { ...lines[0]!, prompt: "a blue cat" });
    expect(await drawInto("out", changed)).toMatchObject({ kept: 2, drawn: 2 });
    expect(readdirSync(at("out")).toSorted()).toEqual(names);
    for (const i of [0, 1]) expect(statSync(at("out", names[i]!)).mtimeMs).toBe(before[i]);
    expect(await drawInto("out", changed)).toMatchObject({ kept: 4, drawn: 0 });
  });

  it("draws a picture that broke on the disk anew, and leaves what others put there", async () => {
    await drawInto("taken", lines);
    const whole = readFileSync(at("taken", "cat.png"));
    writeFileSync(at("taken", "cat.png"), whole.subarray(0, 60));
    const photo = Buffer.from(
      "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
      "base64",
    );
    writeFileSync(at("taken", "000002.png"), photo);
    const run = await drawInto("taken", lines);
    expect(run).toMatchObject({ kept: 2, drawn: 1 });
    expect(run.failures.map(({ line, error }) => [line.number, error])).toEqual([
      [2, expect.stringMatching(/000002.png is in the way of a picture and was not drawn/)],
    ]);
    expect(readFileSync(at("taken", "cat.png"))).toEqual(whole);
    expect(readFileSync(at("taken", "000002.png"))).toEqual(photo);
  });

  it("goes on after a line that fails, and ends where a picture cannot be written", async () => {
    const failing: Drawer = {
      ...drawer,
      draw: (request, of) =>
        drawer.draw(request.prompt === "blue dog" ? { prompt: "dog", class: 1 } : request, of),
    };
    const run = await drawInto("failing", [...lines, { prompt: "cat", size: "9x9" }], failing);
    expect(run).toMatchObject({ drawn: 3, failed: 1 });
    expect(run.failures.map(({ line }) => line.number)).toEqual([5, 2]);
    await expect(drawInto("nowhere", lines)).rejects.toThrow(
      /^Cannot write .*.png \(nothing is left/,
    );
  });
});

describe("the model of a folder", () => {
  it("is known by its weights and config, wherever it lies, and no other adds to its pictures", async () => {
    await writeTrained(at("copy"), tinyTextNetwork);
    await writeTrained(at("other"), { ...tinyTextNetwork, depth: 1 });
    const digests = await Promise.all(
      ["model", "copy", "other"].map((name) => modelDigest(at(name), {})),
    );
    expect(digests[0]).toBe(digests[1]);
    expect(digests[0]).not.toBe(digests[2]);
    const bytes = readFileSync(at("copy", "model.safetensors"));
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(at("copy", "model.safetensors"), bytes);
    expect(await modelDigest(at("copy"), {})).not.toBe(digests[0]);

    mkdirSync(at("kept"));
    const used = { model: "m", digest: digests[0]! };
    const job = await keepModel(at("kept"), used);
    expect(await keepModel(at("kept"), used)).toBe(job);
    await expect(keepModel(at("kept"), { ...used, digest: digests[2]! })).rejects.toThrow(
      /^The pictures in .*kept were drawn by "m" with other weights or another config; choose another folder/,
    );
    await expect(keepModel(at("kept"), { model: "n", digest: digests[2]! })).rejects.toThrow(
      /were drawn by "m", not by "n"; choose/,
    );
  });
});
