/** What goes wrong before and beside the steps of a training. */
import { spawn } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { readTrainingConfig } from "../../src/training/config/config-file.ts";
import type { Card } from "../../src/models/card.ts";
import { openPipeline } from "../../src/pipelines/index-node.ts";
import { lockFolder } from "../../src/weights/sources/lock-node.ts";
import type { TrainingEvent } from "../../src/training/loop.ts";
import { train, type TrainOptions } from "../../src/training/run/train-node.ts";
import { safetensorsBytes } from "../../src/weights/safetensors/write.ts";
import { png } from "../data/support.ts";
import { tinyTokenizerJson } from "../support/tiny-model.ts";

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
      (await trained(`${folder}-out`, [validation(folder)])).result.validation;
    expect(await loss("some")).not.toBe(await loss("renamed"));
  });

  it("takes a class for the same however its name spells é", async () => {
    await classesIn("composed", { ant: 10, "caf\u00e9": 220 });
    await classesIn("apart", { ant: 10, "cafe\u0301": 220 });
    const { result } = await trained("apart-out", [
      `data.path=${at("composed")}`,
      validation("apart"),
    ]);
    expect(result.validation).toBeGreaterThan(0);
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

it("holds pictures out to measure the loss, if there are enough, and says so", async () => {
  const notes = (events: readonly TrainingEvent[]) =>
    events.flatMap((event) => (event.kind === "note" ? [event.message] : []));
  const few = await trained("few");
  expect(few.result).not.toHaveProperty("validation");
  expect(notes(few.events)[0]).toBe(
    "12 pictures are too few to hold some out, so there is no validation loss.",
  );
  expect(notes(few.events)[1]).toContain("this training sees 8.");
  await classesIn("many", { ant: 10, bee: 60, cat: 110, dog: 160, eel: 210 });
  const data = `data={ kind: images, path: ${JSON.stringify(at("many"))} }`;
  const many = await trained("held-out", [data, "validation.batches=1"]);
  expect(many.result.validation).toBeGreaterThan(0);
  expect(notes(many.events)[0]).toMatch(/^2 of 20 pictures are held out/);
  const all = await trained("all", [data, "validation={ share: 0 }"]);
  expect(all.result).not.toHaveProperty("validation");
  expect(all.events).toContainEqual(expect.objectContaining({ kind: "start", pictures: 20 }));
});

it.each([
  [
    "diffusion={ process: discrete, predicts: v, zeroTerminalSNR: true, weighting: { kind: min-snr, gamma: 5 } }",
    "min-snr gives pure noise a weight of 0",
  ],
  ["training.dropCondition=0 sampling.guidance=3", "training.dropCondition is 0"],
  [
    "model.condition=none sampling.guidance=3",
    "sampling.guidance is 3, but the model takes neither",
  ],
  ["training.unknownWords=keep", "training.unknownWords is keep, but the model takes no prompts"],
])("refuses settings that exclude each other: %s", async (settings, message) => {
  const given = settings.startsWith("diffusion") ? [settings] : settings.split(" ");
  expect(await sentence(trained("excluded", given))).toContain(message);
});

it("refuses a folder among the pictures", async () => {
  for (const out of ["photos", "photos/ant/run"]) {
    expect(await sentence(trained(out))).toMatch(/is inside .*photos, whose pictures it trains on/);
  }
});

it("writes a model that is not guided if its condition was never dropped", async () => {
  await trained("undropped", ["training.dropCondition=0"]);
  const card = JSON.parse(readFileSync(at("undropped/model.json"), "utf8")) as Card;
  expect(card.sampling).toMatchObject({ guidance: 1, guidable: false });
  const pipeline = await openPipeline(at("undropped"));
  expect(pipeline.settings({ class: "ant" })).toMatchObject({ guidance: 1 });
  expect(() => pipeline.settings({ class: "ant", guidance: 3 })).toThrow(
    "was not trained without a condition",
  );
  await pipeline.dispose();
});

describe("the folder of a training", () => {
  it("is locked until its process is done or gone", async () => {
    mkdirSync(at("locked"));
    const lock = await lockFolder(at("locked"));
    expect(await sentence(trained("locked"))).toMatch(
      new RegExp(`^UsageError: Process ${process.pid} has been at work in .*locked since 20`),
    );
    await lock.close?.();
    // Another process had this number.
    const other = { pid: process.pid, host: hostname(), since: "2020", process: "1" };
    writeFileSync(at("locked/.lock"), JSON.stringify(other));
    await trained("locked");
    expect(readdirSync(at("locked"))).not.toContain(".lock");
  });

  it.skipIf(process.platform !== "linux")(
    "is free when its process was killed, although the parent has not asked how it ended",
    async () => {
      mkdirSync(at("killed"));
      // The shell becomes a program that never asks for its child.
      const parent = spawn("sh", ["-c", "sleep 60 & echo $!; exec sleep 60"]);
      const pid = Number(await new Promise((told) => parent.stdout.once("data", told)));
      const lock = JSON.stringify({ pid, host: hostname(), since: "2020" });
      writeFileSync(at("killed/.lock"), lock);
      await expect(lockFolder(at("killed"))).rejects.toThrow(`Process ${pid} has been at work`);
      process.kill(pid, "SIGKILL");
      await vi.waitUntil(() => readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z "));
      await (await lockFolder(at("killed"))).close?.();
      parent.kill();
    },
  );

  it("remembers its data, and says what has changed when it resumes", async () => {
    await classesIn("changing", { ant: 10, bee: 120 });
    const data = `data.path=${at("changing")}`;
    const resumed = (options: Partial<TrainOptions> = {}) =>
      trained("remembers", [data, "training.steps=3"], { resume: true, ...options });
    await trained("remembers", [data]);
    renameSync(at("changing/bee"), at("changing/zebra"));
    expect(await sentence(resumed({ changedData: true }))).toMatch(
      /has changed \(the class "bee" is missing; the class "zebra" is new.*start a new training/,
    );
    renameSync(at("changing/zebra"), at("changing/bee"));
    writeFileSync(at("changing/bee/9.png"), await png(9));
    expect(await sentence(resumed())).toMatch(
      /has changed \(8 pictures are 9 now\).*accept it with --changed-data\.$/,
    );
    expect((await resumed({ changedData: true })).result).toMatchObject({ steps: 3 });
    expect((await resumed()).result).toMatchObject({ steps: 3 });
  });

  it("resumes with all of its pictures if it began when none were held out", async () => {
    await classesIn("many", { ant: 10, bee: 60, cat: 110, dog: 160, elk: 210 });
    const settings = [`data.path=${at("many")}`, "validation.share=0"];
    await trained("before", settings);
    const file = at("before", "config.json");
    const config = JSON.parse(readFileSync(file, "utf8")) as { validation?: { share: number } };
    expect(config.validation!.share).toBe(0);
    delete config.validation;
    writeFileSync(file, JSON.stringify(config));
    const more = [settings[0]!, "training.steps=3"];
    expect((await trained("before", more, { resume: true })).result).toMatchObject({ steps: 3 });
  });

  it("may go away: the training is written elsewhere, and can resume there", async () => {
    const report = (event: TrainingEvent) => {
      if (event.kind === "step") rmSync(at("gone"), { recursive: true, force: true });
    };
    const message = await sentence(trained("gone", [], { report }));
    expect(message).toMatch(/^PatchwiseError: The folder .*gone is gone, .* instead, so resume it/);
    const other = /--out (\S+)\.$/.exec(message)![1]!;
    const { result } = await trained(path.relative(scratch, other), ["training.steps=3"], {
      resume: true,
    });
    expect(result).toMatchObject({ steps: 3, finished: true });
    rmSync(other, { recursive: true });
  });
});

it("says at its start that captions are cut off", async () => {
  mkdirSync(at("told"));
  writeFileSync(at("told/0.png"), await png(1));
  writeFileSync(at("told/0.txt"), "a red cat ".repeat(20));
  const { warnings } = await trained("long", [`data.path=${at("told")}`]);
  expect(warnings).toEqual([
    expect.stringMatching(/^1 of 1 caption is longer than the 16 tokens of model\.prompt\.length/),
  ]);
});

it("says at its start how many words it does not know, and refuses if they are most", async () => {
  mkdirSync(at("foreign"));
  const captions = ["a red cat", "红色的苹果", "a blue dog on the moon"];
  for (const [i, caption] of captions.entries()) {
    writeFileSync(at(`foreign/${i}.png`), await png(i));
    writeFileSync(at(`foreign/${i}.txt`), caption);
  }
  // The bundled table spells words that it does not know. This one, of whole words, cannot.
  mkdirSync(at("words"));
  const vocab = Object.fromEntries(
    "? a red cat blue dog on the moon".split(" ").map((word, id) => [word, id]),
  );
  const model = { ...tinyTokenizerJson.model, vocab, unk_token: "?" };
  const json = { ...tinyTokenizerJson, added_tokens: [], model };
  writeFileSync(at("words/tokenizer.json"), JSON.stringify(json));
  const table = ndarray("float32", [9, 8], new Float32Array(9 * 8));
  writeFileSync(at("words/words.safetensors"), safetensorsBytes([["words", table]]));
  const foreign = `data.path=${at("foreign")}`;
  const own = [foreign, `model.prompt.words=${at("words")}`];
  const some = await trained("some-words", own);
  expect(some.warnings).toEqual([
    '36 % of the words of the captions have characters that the vocabulary lacks, and are all the same to the network (the first such caption is "红色的苹果").',
  ]);
  writeFileSync(at("foreign/2.txt"), "蓝色的狗");
  const refused = await sentence(trained("most-words", own));
  expect(refused).toMatch(
    /^UsageError: 75 % of the words .* set training\.unknownWords to keep\.$/,
  );
  const kept = await trained("kept-words", [...own, "training.unknownWords=keep"]);
  expect(kept.warnings).toEqual([expect.stringMatching(/^75 % of the words/)]);

  const spelt = await trained("spelt-words", [foreign]);
  expect(spelt.warnings).toEqual([]);
  const pipeline = await openPipeline(at("spelt-words"));
  expect(pipeline.settings({ prompt: "红苹果" }).warnings).toEqual([]);
  expect(pipeline.settings({ prompt: "绿苹果" }).warnings).toEqual([
    expect.stringContaining('does not know "绿"'),
  ]);
  await pipeline.dispose();

  // A training that goes on keeps its pieces, whatever the captions are now.
  writeFileSync(at("foreign/2.txt"), "绿色的狗");
  const before = readFileSync(at("spelt-words/tokenizer.json"));
  const more = await trained("spelt-words", [foreign, "training.steps=3"], {
    resume: true,
    changedData: true,
  });
  expect(more.result.steps).toBe(3);
  expect(readFileSync(at("spelt-words/tokenizer.json")).equals(before)).toBe(true);
});

it("tells of pictures that cannot be read when they are found", async () => {
  mkdirSync(at("half"));
  for (let i = 0; i < 4; i++) writeFileSync(at("half", `${i}.png`), i < 3 ? "x" : await png(1));
  const half = `data.path=${at("half")}`;
  expect(await sentence(trained("half-out", [half]))).toContain("which is more than one in two");
  for (let i = 0; i < 2; i++) writeFileSync(at("half", `${i}.png`), await png(i));
  const { warnings } = await trained("some-unreadable", [half]);
  expect(warnings).toEqual([expect.stringContaining("2.png cannot be read as a picture")]);
});

it("finishes although its samples cannot be drawn, and says so once", async () => {
  const draw = () => Promise.reject(new Error("no ink"));
  const { result, warnings } = await trained("inkless", ["samples.steps=1"], { draw });
  expect(result.finished).toBe(true);
  expect(warnings).toEqual(["Drawing samples failed, and the training goes on without it: no ink"]);
  expect(readdirSync(at("inkless"))).toContain("model.safetensors");
});
