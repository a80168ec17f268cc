import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import { writeSafetensors } from "../../src/weights/index-node.ts";

const root = path.resolve(import.meta.dirname, "../..");
const fixture = "test/fixtures/torch_rng";
const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-cli-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** The command line itself, as a process of its own. */
function patchwise(...args: string[]) {
  const run = spawnSync(process.execPath, ["scripts/run.mjs", "src/cli/main.ts", ...args], {
    cwd: root,
    encoding: "utf8",
  });
  return { code: run.status, out: run.stdout, err: run.stderr };
}

async function folder(name: string, config: string, values: number[] = []): Promise<string> {
  const directory = path.join(scratch, name);
  mkdirSync(directory);
  writeFileSync(path.join(directory, "config.json"), config);
  const array = ndarray("float32", [values.length], values);
  await writeSafetensors(path.join(directory, "io.safetensors"), [
    [`rand.seed0.${values.length}`, array],
  ]);
  return directory;
}

const oneSentence = /^patchwise: [^\n]+\.\n$/;
const torchRng = '{ "family": "torch_rng", "tolerance": { "atol": 1e-5 } }';

describe("patchwise verify", () => {
  it("prints every output with its error and tolerance", () => {
    const { code, out, err } = patchwise("verify", fixture);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const lines = out.trimEnd().split("\n");
    expect(lines[0]).toBe("ok   torch_rng: torch_rng, 42 outputs");
    expect(lines).toHaveLength(43);
    expect(out).toMatch(/^ {2}ok {3}randn\.seed42\.100 +error 0, tolerance 1\.0e-5$/m);
  });

  it("prints one JSON object and nothing else with --json", () => {
    const { code, out, err } = patchwise("verify", "--json", fixture, `${fixture}_wide/`);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const report = JSON.parse(out);
    expect(report.ok).toBe(true);
    expect(report.folders.map((each: { name: string }) => each.name)).toEqual([
      "torch_rng",
      "torch_rng_wide",
    ]);
    expect(report.folders[0].outputs).toContainEqual({
      name: "randn.seed42.100",
      max_error: 0,
      tolerance: 1e-5,
      ok: true,
    });
  });

  it("exits with 1 if an output exceeds its tolerance, and continues with the next folder", async () => {
    const off = await folder("off", torchRng, [0.25, 0.7682218]);
    const broken = await folder("broken", '{ "family": ', [0]);
    const plain = patchwise("verify", off, broken, fixture);
    expect(plain.code).toBe(1);
    expect(plain.out).toContain("FAIL off: torch_rng, 1 of 1 outputs failed\n");
    expect(plain.out).toContain("  FAIL rand.seed0.2  error 2.5e-1, tolerance 1.0e-5\n");
    expect(plain.out).toContain("FAIL broken: could not be verified\n");
    expect(plain.out).toContain("ok   torch_rng: torch_rng, 42 outputs\n");
    expect(plain.err).toMatch(oneSentence);

    const json = patchwise("verify", "--json", off, broken, fixture);
    expect(json).toMatchObject({ code: 1, err: plain.err });
    const { ok, folders } = JSON.parse(json.out);
    expect(ok).toBe(false);
    expect(folders.map((each: { ok: boolean }) => each.ok)).toEqual([false, false, true]);
    expect(folders[0].outputs[0].max_error).toBeCloseTo(0.2462566, 6);
    expect(folders[1]).toMatchObject({ name: "broken", family: null, outputs: [] });
    expect(plain.err).toBe(`patchwise: ${folders[1].error}\n`);
  });

  it.each([
    ["an unknown family", '{ "family": "gan", "tolerance": {} }', /"gan".*known are .*torch_rng/],
    ["no tolerance", '{ "family": "torch_rng" }', /has no "tolerance"/],
    ["no family", '{ "tolerance": { "atol": 1 } }', /has no "family"/],
  ])("reports %s with a one-line error and exit code 1", async (name, config, message) => {
    const { code, out, err } = patchwise("verify", await folder(name, config, [0]));
    expect(code).toBe(1);
    expect(out).toBe(`FAIL ${name}: could not be verified\n`);
    expect(err).toMatch(oneSentence);
    expect(err).toMatch(message);
  });

  it.each([
    ["no folder", ["verify"], "missing required argument 'dir'; see patchwise verify --help."],
    [
      "a missing folder",
      ["verify", fixture, "test/fixtures/nothing"],
      "test/fixtures/nothing does not exist; give a folder with config.json and io.safetensors.",
    ],
    [
      "a file",
      ["verify", "package.json"],
      "package.json is a file; give a folder with config.json and io.safetensors.",
    ],
    [
      "a misspelt option",
      ["verify", "--jsno", fixture],
      "unknown option '--jsno' (did you mean --json?); see patchwise verify --help.",
    ],
    [
      "a misspelt command",
      ["verfy", fixture],
      "unknown command 'verfy' (did you mean verify?); see patchwise --help.",
    ],
  ])("reports %s with a one-line error and exit code 2", (_, args, sentence) => {
    expect(patchwise(...args)).toEqual({ code: 2, out: "", err: `patchwise: ${sentence}\n` });
  });

  it("reports wrong usage as JSON with --json", () => {
    const { code, out, err } = patchwise("verify", "--json", "nothing");
    expect(code).toBe(2);
    expect(err).toMatch(oneSentence);
    expect(JSON.parse(out)).toEqual({ ok: false, error: err.slice("patchwise: ".length, -1) });
  });
});

describe("patchwise", () => {
  it("prints its version", () => {
    const { version } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
    expect(patchwise("--version")).toEqual({ code: 0, out: `${version}\n`, err: "" });
  });

  it("prints its help to stdout with --help", () => {
    const { code, out, err } = patchwise("--help");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^Usage: patchwise /);
    expect(out).toMatch(/^ {2}verify .*compare with recorded reference tensors$/m);
    expect(patchwise("verify", "--help").out).toContain("--json");
  });

  it("prints its help to stderr without a command", () => {
    const { code, out, err } = patchwise();
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(/^Usage: patchwise /);
  });
});
