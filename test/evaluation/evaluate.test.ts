import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { contactSheet } from "../../src/comparison/sheets-node.ts";
import { listRealEmoji } from "../../src/comparison/emoji-gallery-node.ts";
import {
  evaluate,
  type EvaluateEvent,
  type EvaluateOptions,
  type Evaluated,
  type SeededPrompt,
} from "../../src/comparison/evaluate-node.ts";
import { evaluationTable } from "../../src/comparison/evaluation-table-node.ts";
import {
  drawEmoji,
  type EmojiPicture,
  isHeldOut,
} from "../../src/data/formats/emoji/emoji-node.ts";
import { UsageError } from "../../src/engine/errors.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import type { Picture } from "../../src/pictures/picture.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-evaluate-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const backend = nodeBackend("cpu");
const shape = { height: 64, width: 64, channels: 3 } as const;
const styles = ["noto", "flat", "twemoji"] as const;

let real: readonly EmojiPicture[];
let prompts: readonly SeededPrompt[];

beforeAll(async () => {
  const all = await listRealEmoji();
  const names = [...new Set(all.map(({ hexcode }) => hexcode))];
  const hearts = ["1F499", "1F49A"];
  const chosen = new Set([...names.filter((_, i) => i % 40 === 0), ...hearts]);
  real = all.filter(({ hexcode }) => chosen.has(hexcode));
  const drawn = real.filter(({ style, hexcode }) => style === "noto" && !isHeldOut(hexcode));
  prompts = [
    ...drawn.slice(0, 16).map(({ label, hexcode }, i) => ({
      prompt: label,
      lang: i % 2 === 0 ? ("en" as const) : ("zh" as const),
      kind: "training",
      form: "label",
      answers: [hexcode],
      style: "noto" as const,
      seed: i,
    })),
    ...["blue heart", "green heart"].map((prompt, i) => ({
      prompt,
      lang: "en" as const,
      kind: "colour",
      answers: [hearts[i]!],
      seed: 100 + i,
    })),
  ];
});

/** Draws the real picture of the answer, or of the answer to the prompt so many places further on. */
const perfect =
  (shift = 0) =>
  async (prompt: SeededPrompt): Promise<Picture> => {
    const { answers } = prompts[(prompts.indexOf(prompt) + shift) % prompts.length]!;
    const picture = real.find(({ hexcode, style }) => hexcode === answers[0] && style === "noto")!;
    return { ...shape, pixels: await drawEmoji(picture, shape) };
  };

const run = (out: string, more: Partial<EvaluateOptions> = {}): Promise<Evaluated> =>
  evaluate({
    model: "perfect",
    prompts,
    draw: perfect(),
    styles,
    real,
    backend,
    out: path.join(scratch, out),
    report: () => {},
    ...more,
  });

describe("an evaluation", () => {
  it("gives a drawer of real pictures full marks, in a report of every measure", async () => {
    const evaluated = await run("perfect");
    const { evaluation } = evaluated;
    expect(evaluation).toMatchObject({
      model: "perfect",
      prompts: 18,
      top1: 1,
      top5: 1,
      byLang: { en: { prompts: 10, top1: 1 }, zh: { prompts: 8, top5: 1 } },
      byKind: { training: { prompts: 16, top1: 1, byLang: { zh: { prompts: 8 } } } },
      byForm: { label: { prompts: 16 } },
      colour: { prompts: 2, share: 1, byColour: { blue: { prompts: 1, share: 1 } } },
      style: { prompts: 16 },
    });
    expect(evaluation.memorisation.copies).toBeGreaterThan(0.8);
    expect(evaluation.style!.share).toBeGreaterThan(0.8);
    expect(evaluation.real).toMatchObject({ prompts: 18, style: null, colour: { share: 1 } });
    expect(evaluation.judge.realTop1).toBeGreaterThan(0.4);
    expect(evaluation.judge.damagedTop5).toBeGreaterThan(0.9);
    for (const measure of ["fid", "kid", "precision", "recall", "seconds"] as const) {
      expect(evaluation[measure]).toEqual(expect.any(Number));
    }
    const table = evaluationTable(evaluation);
    expect(table).toContain("| **top-1 / top-5**, all prompts | 18 | 100.0 % / 100.0 % |");
    expect(table).toContain("must not be compared with published figures");
    const sheet = await contactSheet(prompts, evaluated);
    expect([...sheet.subarray(1, 4)].map((code) => String.fromCharCode(code)).join("")).toBe("PNG");
  });

  it("scores drawings of other prompts at chance", async () => {
    const { evaluation } = await run("shuffled", { draw: perfect(5) });
    expect(evaluation.top1).toBeLessThan(0.1);
    expect(evaluation.top5).toBeLessThan(0.4);
    expect(evaluation.colour!.share).toBeLessThan(1);
  });

  it("resumes after a stop, and reports progress from the first prompt on", async () => {
    const controller = new AbortController();
    let drawn = 0;
    const counted = async (prompt: SeededPrompt) => {
      if (++drawn === 7) controller.abort();
      return perfect()(prompt);
    };
    const events: EvaluateEvent[] = [];
    const report = (event: EvaluateEvent) => void events.push(event);
    const stopped = run("stopped", { draw: counted, signal: controller.signal, report });
    await expect(stopped).rejects.toThrow("aborted");
    expect(events[0]).toMatchObject({ kind: "drawing", done: 0, of: 18 });
    expect(readdirSync(path.join(scratch, "stopped", "drawings"))).toHaveLength(7);
    const { evaluation } = await run("stopped", { draw: counted });
    // The first kept drawing is drawn once more, to see that it is of the same model.
    expect(drawn).toBe(18 + 1);
    expect(evaluation.top1).toBe(1);
  });

  it("does not resume with the drawings of another model", async () => {
    const two = prompts.slice(0, 2);
    await run("other", { prompts: two });
    const again = run("other", { prompts: two, draw: perfect(1) });
    await expect(again).rejects.toThrow(UsageError);
    await expect(again).rejects.toThrow(/holds drawings of another model .*--out/);
  });

  it("has no distances for fewer than four prompts", async () => {
    const { evaluation } = await run("few", { prompts: prompts.slice(0, 2) });
    expect(evaluation).toMatchObject({ fid: null, kid: null, precision: null, colour: null });
    expect(evaluationTable(evaluation)).toContain("| FID | 2 | – | – |");
  });

  it("refuses answers that no picture shows before it draws", async () => {
    const flag = { ...prompts[0]!, prompt: "flag of Japan", answers: ["1F1EF-1F1F5"] };
    const draw = () => Promise.reject(new Error("drawn"));
    const refused = run("flag", { prompts: [prompts[0]!, flag], draw });
    await expect(refused).rejects.toThrow(/1F1EF-1F1F5.*flag of Japan/);
  });
});
