import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import { openRunFolder, writeCheckpoint } from "../../src/training/run/run-folder-node.ts";
import { openWords } from "../../src/training/run/words-node.ts";
import { messageOf } from "../data/support.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), "patchwise-run-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const state = { weight: ndarray("float32", [2], [1, 2]) };
const write = (out: string, step: number) =>
  writeCheckpoint(path.join(out, "checkpoints"), { step, seconds: 1 }, state, 2);

it("reads the state only when a training resumes", async () => {
  const out = path.join(root, "whole");
  const begun = await openRunFolder(out, {}, false);
  expect(begun.from).toBeUndefined();
  await begun.begin();
  await write(out, 3);
  const { from } = await openRunFolder(out, {}, true);
  expect(from).toMatchObject({ step: 3, seconds: 1 });
  expect(from).not.toHaveProperty("state");
  expect(await from!.readState()).toEqual(state);
});

it("never starts in a folder with checkpoints, even without a config", async () => {
  const out = path.join(root, "bare");
  await write(out, 3);
  for (const resume of [false, true]) {
    const opened = openRunFolder(out, {}, resume);
    await expect(opened).rejects.toThrow(UsageError);
    await expect(opened).rejects.toThrow("holds a training of 3 steps without its config.json");
  }
});

it("leaves no lock where its config cannot be written", async () => {
  const out = path.join(root, "unwritable");
  const folder = await openRunFolder(out, {}, false);
  mkdirSync(path.join(out, "config.json"), { recursive: true });
  await expect(folder.begin()).rejects.toThrow("Cannot write");
  expect(readdirSync(out).toSorted()).toEqual(["config.json", "samples"]);
});

it("removes unfinished checkpoints of killed trainings", async () => {
  const checkpoints = path.join(root, "killed", "checkpoints");
  mkdirSync(path.join(checkpoints, ".unfinished-step-00000007"), { recursive: true });
  await write(path.join(root, "killed"), 9);
  expect(readdirSync(checkpoints)).toEqual(["step-00000009"]);
});

it("names a damaged tokenizer", async () => {
  writeFileSync(path.join(root, "tokenizer.json"), '{"model":');
  expect(await messageOf(openWords(root))).toMatch(/tokenizer\.json is not valid JSON/);
});
