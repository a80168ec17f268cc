import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { interrupted, oneSentence, patchwise } from "../support/cli.ts";
import { tinyTextNetwork } from "../support/tiny-model.ts";
import { writeTrained } from "../support/trained-folder.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-draw-many-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
beforeAll(async () => {
  await writeTrained(at("model"), tinyTextNetwork);
});

function write(name: string, lines: readonly object[]): string {
  writeFileSync(at(name), lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  return at(name);
}

const drawMany = (file: string, out: string, ...more: readonly string[]) =>
  patchwise(["draw-many", file, "--model", at("model"), "--out", at(out), ...more]);
const pictures = (out: string) => readdirSync(at(out)).filter((name) => name.endsWith(".png"));

describe("patchwise draw-many", () => {
  it("draws what generate draws in several processes, goes on after lines that cannot be drawn, and packs shards", () => {
    const lines = [
      ...Array.from({ length: 5 }, (_, seed) => ({ prompt: "a red cat", seed })),
      { class: 1 },
      { prompt: "dog", size: "9x9" },
    ];
    const more = ["--workers", "2", "--batch", "2", "--steps", "3", "--shards", "webdataset"];
    const run = drawMany(write("several.jsonl", lines), "out", ...more, "--json");
    expect(run.code).toBe(1);
    expect(run.err).toMatch(/several.jsonl, line 6: model takes prompts and has no classes/);
    expect(run.err).toMatch(/several.jsonl, line 7: model cannot draw 9×9 pixels/);
    expect(JSON.parse(run.out)).toMatchObject({
      pictures: 7,
      kept: 0,
      drawn: 5,
      failed: [{ line: 6 }, { line: 7, name: "000007" }],
      shards: [at("out", "shards", "pictures-00000.tar")],
    });
    const one = ["generate", "a red cat", "--model", at("model"), "--out", at("one.png")];
    expect(patchwise([...one, "--steps", "3", "--seed", "4"]).code).toBe(0);
    expect(readFileSync(at("out", "000005.png"))).toEqual(readFileSync(at("one.png")));
  }, 240_000);

  it("refuses a file that cannot be read with one sentence", () => {
    const run = drawMany(at("no-such.jsonl"), "none");
    expect(run.code).toBe(2);
    expect(run.err).toMatch(oneSentence);
  });

  it("refuses shards of clips before it draws any", () => {
    const run = patchwise(
      [
        "draw-many",
        write("clips.jsonl", [{ prompt: "red heart" }]),
        "--model",
        "emoji-motion",
      ].concat(["--out", at("clips"), "--shards", "parquet"]),
    );
    expect(run.code).toBe(2);
    expect(run.err).toBe(
      "patchwise: 000001.webp is a clip, which shards cannot hold; leave --shards out.\n",
    );
  });

  it("keeps what is drawn when it is interrupted, and ends with the rest", async () => {
    const lines = Array.from({ length: 60 }, (_, seed) => ({ prompt: "a red cat", seed }));
    const file = write("long.jsonl", lines);
    const args = ["draw-many", file, "--model", at("model"), "--out", at("long"), "--batch", "1"];
    const stopped = await interrupted([...args, "--steps", "200"], /pictures \(/);
    expect(stopped.code).toBe(130);
    expect(stopped.err).toMatch(
      /Stopped; \d+ of 60 pictures are in .*, and the same command draws/,
    );
    const rest = drawMany(file, "long", "--steps", "2", "--json");
    expect(JSON.parse(rest.out)).toMatchObject({ pictures: 60, failed: [] });
    expect(pictures("long")).toHaveLength(60);
  }, 240_000);
});
