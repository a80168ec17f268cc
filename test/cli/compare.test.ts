import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readPictureFile } from "../../src/pictures/decode-node.ts";
import { writePicture } from "../../src/pictures/file-node.ts";
import type { Comparison } from "../../src/comparison/table.ts";
import { interrupted, oneSentence, patchwise } from "../support/cli.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-compare-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const config = (model: string, more = "") => `seed: 3
data: { kind: images, path: ${JSON.stringify(at("photos"))} }
picture: { size: 8 }
model: { ${model} }
training: { steps: 9, batch: 4, warmUp: 2, decay: { kind: none }, threads: 1 }
sampling: { steps: 2 }
validation: { data: { kind: images, path: ${JSON.stringify(at("others"))} }, steps: 1000, batches: 2 }
${more}`;

beforeAll(async () => {
  for (const [folder, from] of [
    ["photos", 0],
    ["others", 7],
  ] as const) {
    for (const [label, name] of ["dark", "light"].entries()) {
      mkdirSync(at(folder, name), { recursive: true });
      for (let i = 0; i < 8; i++) {
        const pixels = Uint8Array.from(
          { length: 192 },
          (_, k) => ((k * 3) % 90) + 9 * i + from + 90 * label,
        );
        const picture = { width: 8, height: 8, channels: 3, pixels } as const;
        await writePicture(at(folder, name, `${i}.png`), picture);
      }
    }
  }
  writeFileSync(at("narrow.yaml"), config("patch: 4, hidden: 16, depth: 1"));
  writeFileSync(at("vit.yaml"), config("kind: u-vit, patch: 4, hidden: 16, depth: 2"));
  writeFileSync(at("grey.yaml"), config("patch: 4").replace("size: 8", "size: 8, channels: 1"));
  writeFileSync(at("odd.yaml"), config("patch: 3"));
  writeFileSync(at("elsewhere.yaml"), config("patch: 4").replace("photos", "others"));
  writeFileSync(at("away.yaml"), config("patch: 4", "name: ../away"));
  writeFileSync(at("named.yaml"), config("patch: 4", "name: narrow"));
  writeFileSync(
    at("coder.yaml"),
    config("")
      .replace("model: {  }", "autoencoder: { kind: vq }")
      .replace(/sampling: .*\n/, ""),
  );
  writeFileSync(
    at("lora.yaml"),
    `base: emoji\nlora: {}\ndata: { kind: images, path: x }\ntraining: { steps: 1 }\n`,
  );
});

const compare = (...args: string[]) => patchwise(["compare", ...args]);
const both = [at("narrow.yaml"), at("vit.yaml")];
const comparisonIn = (folder: string) =>
  JSON.parse(readFileSync(at(folder, "compare.json"), "utf8")) as Comparison;

describe("patchwise compare", () => {
  it("trains each model with the same compute, and writes one table and one picture", async () => {
    const run = compare(
      ...both,
      "--out",
      at("whole"),
      "--compute",
      "0.00001",
      "--count",
      "12",
      "--json",
    );
    expect(run).toMatchObject({ code: 0 });
    const [estimate] = run.err.match(/^This takes about .*$/m)!;
    expect(estimate).toMatch(
      /^This takes about (\d+ h )?(\d+ min )?\d+ (s|min): .* for the extractor; .* to train narrow, and .* to draw with it; .* to train vit, and .* to draw with it\.$/,
    );
    expect(run.err.indexOf(estimate)).toBeLessThan(run.err.indexOf("extractor: step"));
    const comparison = comparisonIn("whole");
    expect(JSON.parse(run.out)).toEqual(comparison);
    expect(comparison).toMatchObject({ drawn: 12, budget: "0.00001 Tflop" });
    expect(comparison.reference).toBe("16 held-out pictures");
    expect(comparison.models.map(({ name }) => name)).toEqual(["narrow", "vit"]);
    for (const model of comparison.models) {
      // Whole steps of four pictures.
      const step = (3 * model.gflops * 4) / 1e3;
      expect(Math.abs(model.tflop - 1e-5)).toBeLessThanOrEqual(step);
      expect(model.tflop).toBeCloseTo((3 * model.gflops * model.images) / 1e3, 12);
      expect(model.lossKind).toBe("error of the velocity");
      expect(model.fid).toBeGreaterThan(comparison.real!.fid);
      expect(model.validation).toBeGreaterThan(0);
      for (const share of [model.precision, model.recall, model.recognised!]) {
        expect(share).toBeGreaterThanOrEqual(0);
        expect(share).toBeLessThanOrEqual(1);
      }
      expect(model.secondsAnImage).toBeGreaterThan(0);
    }
    expect(comparison.real!.recognised).toBe(1);

    const table = readFileSync(at("whole/compare.md"), "utf8").trim().split("\n");
    expect(table[0]).toMatch(/[^,]\.$/);
    const rows = table.filter((line) => line.startsWith("|"));
    // Two lines of names, the models, the real pictures and noise.
    expect(rows).toHaveLength(2 + 2 + 2);
    expect(new Set(rows.map((line) => line.split("|").length)).size).toBe(1);
    expect(table.at(-1)).toContain("With 12 drawn pictures and 16 real ones");
    const picture = await readPictureFile(at("whole/compare.png"), "white");
    // Two rows of four of 56 pixels each a model, under their names.
    expect(picture).toMatchObject({ width: 2 * (4 * 58 - 2) + 14, height: 22 + 2 * 58 - 2 });
  });

  it("resumes after a stop with the same results", async () => {
    const args = [...both, "--out", at("cut"), "--compute", "0.00001", "--count", "12"];
    const cut = await interrupted(["compare", ...args], /vit:/);
    expect(cut.code).toBe(130);
    expect(cut.err).toContain("--resume");
    expect(existsSync(at("cut/compare.json"))).toBe(false);
    const on = compare(...args, "--resume");
    expect(on).toMatchObject({ code: 0 });
    // What was trained is not trained again.
    expect(on.err.match(/Training a model/g) ?? []).toHaveLength(1);
    expect(on.err).toMatch(
      /^This takes about \d+ s: \d+ s to train vit, and \d+ s to draw with it\.$/m,
    );
    const clockless = ({ models, ...rest }: Comparison) => ({
      ...rest,
      models: models.map((model) => ({ ...model, minutes: 0, secondsAnImage: 0 })),
    });
    expect(clockless(comparisonIn("cut"))).toEqual(clockless(comparisonIn("whole")));
    expect(compare(...args).err).toContain("resume it with --resume");
    const other = compare(...args.slice(0, -1), "13", "--resume");
    expect(other.err).toMatch(/started with other pictures, another seed, budget or count/);
    const changed = compare(...args, "--resume", "--set", "model.mlpRatio=2");
    expect(changed.err).toMatch(/The config of narrow is another than .*remove \S+narrow to train/);
    // Another process is at work in the folder.
    const own = { pid: process.pid, host: hostname(), since: new Date().toISOString() };
    writeFileSync(at("cut/.lock"), JSON.stringify(own));
    const beside = compare(...args, "--resume");
    expect(beside.code).toBe(2);
    expect(beside.err).toMatch(`Process ${process.pid} has been at work in ${at("cut")} since`);
  });

  it("uses and reports an extractor with random weights without classes", () => {
    const none = ["data", "validation.data"].flatMap((of) => ["--set", `${of}.classes=false`]);
    const args = ["--out", at("none"), "--minutes", "0.001", "--count", "8", ...none];
    const run = compare(...both, ...args);
    expect(run).toMatchObject({ code: 0 });
    const { extractor, models, budget } = comparisonIn("none");
    expect(extractor).toBe("a convolutional network with random weights");
    expect(budget).toBe("0.001 min");
    expect(models.map((model) => "recognised" in model)).toEqual([false, false]);
    expect(run.out).not.toContain("recognised");
  });

  const given = ["--compute", "1", "--out", at("refused")];
  it.each<[readonly string[], string]>([
    [[both[0]!, ...given], "needs at least two"],
    [[...both, "--out", at("refused")], "give --minutes, or --compute"],
    [[...both, "--minutes", "1", ...given], "give one of them"],
    [[...both, "--compute", "0", "--out", at("refused")], "--compute is 0"],
    [[both[0]!, at("named.yaml"), ...given], 'both have the name "narrow"'],
    [[both[0]!, at("elsewhere.yaml"), ...given], "data.path is"],
    [[both[0]!, at("grey.yaml"), ...given], "picture.channels is 3 in one and 1 in the other"],
    [[both[0]!, at("away.yaml"), ...given], 'has the name "../away"'],
    [[both[0]!, at("lora.yaml"), ...given], "trains a LoRA"],
    [[both[0]!, at("coder.yaml"), ...given], "trains an autoencoder"],
    [[both[0]!, at("none.yaml"), ...given], "Cannot read the config"],
    [[both[0]!, at("odd.yaml"), ...given], "odd.yaml: The model (patch): a picture of 8×8"],
    [[...both, "--count", "2", ...given], "--count is 2"],
    [[...both, "--resume", ...given], "no comparison in"],
  ])("refuses %j with a one-line error", (args, message) => {
    const { code, err } = compare(...args);
    expect(code).toBe(2);
    expect(err).toMatch(oneSentence);
    expect(err).toContain(message);
    expect(existsSync(at("refused"))).toBe(false);
  });
});
