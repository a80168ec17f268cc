/** What goes wrong before and beside the steps of a training. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { readTrainingConfig } from "../../src/training/config/config-file.ts";
import type { TrainingEvent } from "../../src/training/loop.ts";
import { train, type TrainOptions } from "../../src/training/run/train-node.ts";
import { png } from "../data/support.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-run-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A folder of classes, each with four pictures of its colour. */
async function classesIn(folder: string, reds: Readonly<Record<string, number>>): Promise<void> {
  for (const [name, red] of Object.entries(reds)) {
    mkdirSync(at(folder, name), { recursive: true });
    for (let i = 0; i < 4; i++) writeFileSync(at(folder, name, `${i}.png`), await png(red + i));
  }
}

beforeAll(() => classesIn("photos", { ant: 10, bee: 120, cat: 220 }));

const yaml = () => `seed: 1
data: { kind: images, path: ${JSON.stringify(at("photos"))} }
picture: { size: 8 }
model: { patch: 4, hidden: 16, depth: 1, heads: 1 }
training: { steps: 2, batch: 4, warmUp: 1, threads: 1 }
`;

/** Trains with settings as --set gives them. */
async function trained(
  out: string,
  settings: readonly string[] = [],
  options: Partial<TrainOptions> = {},
) {
  const events: TrainingEvent[] = [];
  const result = await train(readTrainingConfig("run.yaml", yaml(), settings), {
    backend: nodeBackend("cpu"),
    out: at(out),
    report: (event) => events.push(event),
    ...options,
  });
  const warnings = events.flatMap((event) => (event.kind === "warning" ? [event.message] : []));
  return { result, events, warnings };
}

const sentence = (work: Promise<unknown>) => work.then(() => "no error", String);
const validation = (folder: string) =>
  `validation={ data: { kind: images, path: ${JSON.stringify(at(folder))} }, steps: 2, batches: 1 }`;

describe("validation", () => {
  it("matches classes by their names, so that missing ones do not shift the others", async () => {
    await classesIn("some", { ant: 10, cat: 220 });
    await classesIn("renamed", { ant: 10, bee: 220 });
    const loss = async (folder: string) =>
      (await trained(folder, [validation(folder)])).result.validation;
    expect(await loss("some")).not.toBe(await loss("renamed"));
  });

  it.each([
    ["unknown", { ant: 10, dog: 20 }, 'has no class "dog", but'],
    ["unsorted", { "": 10 }, "takes classes, but .*unsorted has none"],
  ])("on %s classes is refused before the first step", async (folder, reds, message) => {
    await classesIn(folder, reds);
    expect(await sentence(trained(`out-${folder}`, [validation(folder)]))).toMatch(
      new RegExp(`^UsageError: The training ${message}`),
    );
    expect(readdirSync(at(`out-${folder}`))).not.toContain("checkpoints");
  });
});

it("finishes although its samples cannot be drawn, and says so once", async () => {
  const draw = () => Promise.reject(new Error("no ink"));
  const { result, warnings } = await trained("inkless", ["samples.steps=1"], { draw });
  expect(result.finished).toBe(true);
  expect(warnings).toEqual(["Drawing samples failed, and the training goes on without it: no ink"]);
  expect(readdirSync(at("inkless"))).toContain("model.safetensors");
});
