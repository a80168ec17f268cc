import { spawn, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { typescript } from "../support/typescript.ts";

const root = path.resolve(import.meta.dirname, "../..");
const folder = mkdtempSync(path.join(tmpdir(), "patchwise-train-"));
const photos = path.join(folder, "photos");
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Two classes of coloured stripes. */
beforeAll(async () => {
  for (const [label, name] of ["across", "down"].entries()) {
    mkdirSync(path.join(photos, name), { recursive: true });
    for (let i = 0; i < 6; i++) {
      const pixels = Uint8Array.from({ length: 8 * 8 * 3 }, (_, j) => {
        const [row, column] = [Math.floor(j / 24), Math.floor(j / 3) % 8];
        return (label === 0 ? row : column) % 2 === 0 ? 40 * i : 255;
      });
      const image = sharp(pixels, { raw: { width: 8, height: 8, channels: 3 } });
      await image.png().toFile(path.join(photos, name, `${i}.png`));
    }
  }
});

const config = `seed: 3
data: { kind: images, path: ${JSON.stringify(photos)}, flip: true }
picture: { size: 8 }
model: { patch: 2, hidden: 32, depth: 2 }
training: { steps: 40, batch: 4, optimizer: { kind: muon }, warmUp: 5, threads: 1 }
checkpoint: { steps: 3 }
log: { steps: 2 }
samples: { grids: 0 }
`;
const file = path.join(folder, "stripes.yaml");
writeFileSync(file, config);

const command = (...args: string[]) => [
  ...typescript,
  path.join(root, "src/cli/main.ts"),
  "train",
  ...args,
];

function trained(...args: string[]) {
  const run = spawnSync(process.execPath, command(...args), {
    cwd: root,
    encoding: "utf8",
    timeout: 120_000,
  });
  return { code: run.status, out: run.stdout, err: run.stderr };
}

const model = (out: string) => readFileSync(path.join(folder, out, "model.safetensors"));
const checkpoints = (out: string) => {
  const parent = path.join(folder, out, "checkpoints");
  return existsSync(parent) ? readdirSync(parent) : [];
};

describe("patchwise train", () => {
  const whole = path.join(folder, "whole");
  let result: ReturnType<typeof trained>;
  beforeAll(() => {
    result = trained(file, "--out", whole, "--json");
  });

  it("writes a model, its checkpoints and its metrics", () => {
    expect(result).toMatchObject({ code: 0 });
    expect(JSON.parse(result.out)).toMatchObject({
      out: whole,
      steps: 40,
      finished: true,
      skipped: [],
    });
    expect(checkpoints("whole").sort()).toEqual(["step-00000039", "step-00000040"]);
    const card = JSON.parse(readFileSync(path.join(whole, "model.json"), "utf8"));
    expect(card).toMatchObject({
      name: "whole",
      classes: ["across", "down"],
      trained: { steps: 40, images: 160 },
    });
    const lines = readFileSync(path.join(whole, "metrics.jsonl"), "utf8").trim().split("\n");
    const steps = lines.map((line) => (JSON.parse(line) as { step: number }).step);
    expect(steps).toEqual(Array.from({ length: 20 }, (_, i) => 2 * i + 2));
  });

  it("resumes bit for bit after twenty kills at random moments", async () => {
    const out = path.join(folder, "killed");
    for (let kill = 0; kill < 20; kill++) {
      const begun = checkpoints("killed").length > 0 || existsSync(path.join(out, "config.json"));
      const child = spawn(
        process.execPath,
        command(file, "--out", out, ...(begun ? ["--resume"] : [])),
        { cwd: root, stdio: ["ignore", "ignore", "pipe"] },
      );
      const said: string[] = [];
      child.stderr.setEncoding("utf8").on("data", (text: string) => said.push(text));
      // From the first moments of loading to the middle of steps and writes; no clock decides what must hold.
      const timer = setTimeout(() => child.kill("SIGKILL"), 300 + 97 * kill);
      const [code, signal] = await new Promise<[number | null, string | null]>((resolve) => {
        child.on("close", (...ended) => resolve(ended));
      });
      clearTimeout(timer);
      expect({
        killed: signal === "SIGKILL" || code === 0,
        said: code ? said.join("") : "",
      }).toEqual({ killed: true, said: "" });
    }
    const begun = existsSync(path.join(out, "config.json"));
    const last = trained(file, "--out", out, ...(begun ? ["--resume"] : []));
    expect(last).toMatchObject({ code: 0 });
    expect(model("killed").equals(model("whole"))).toBe(true);
    expect(checkpoints("killed").filter((name) => !name.startsWith("step-"))).toEqual([]);
  }, 240_000);

  it("writes a checkpoint at Ctrl-C, and resumes from it", async () => {
    const out = path.join(folder, "stopped");
    const child = spawn(
      process.execPath,
      command(file, "--out", out, "--set", "training.steps= 100000"),
      { cwd: root, stdio: ["ignore", "ignore", "pipe"] },
    );
    let told = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (told += text));
    const ended = new Promise<number | null>((resolve) => {
      child.on("close", resolve);
    });
    while (checkpoints("stopped").length === 0)
      await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill("SIGINT");
    expect(await ended).toBe(130);
    expect(told).toContain(
      `resume with: patchwise train ${file} --out ${out} --set 'training.steps= 100000' --resume`,
    );
    const step = Number(/\d+$/.exec(checkpoints("stopped").sort().at(-1)!)![0]);
    const next = trained(
      file,
      "--out",
      out,
      "--set",
      `training.steps=${step + 2}`,
      "--resume",
      "--json",
    );
    expect(JSON.parse(next.out)).toMatchObject({ steps: step + 2, finished: true });
  }, 120_000);

  it("stops with a one-line error when the loss is NaN, and keeps the last good checkpoint", () => {
    const out = path.join(folder, "diverged");
    const { code, err } = trained(
      file,
      "--out",
      out,
      "--set",
      "training.optimizer={ kind: adamw, rate: 1e+30 }",
      "--set",
      "training.warmUp=0",
      "--set",
      "checkpoint.steps=1",
    );
    expect(code).toBe(1);
    expect(err).toMatch(
      /patchwise: Training stopped at step \d+ because the (loss|gradient) is no longer a number; /,
    );
  });

  it("never saves weights that are NaN", () => {
    const out = path.join(folder, "broken");
    const { code, err } = trained(
      file,
      "--out",
      out,
      "--set",
      "training.optimizer={ kind: adamw, rate: 1e+39 }",
      "--set",
      "training.warmUp=0",
      "--set",
      "checkpoint.steps=1",
    );
    expect(code).toBe(1);
    expect(err).toMatch(
      /patchwise: Training stopped at step 1 because the state .* is no longer a number; nothing was saved yet\./,
    );
    expect(checkpoints("broken")).toEqual([]);
    expect(existsSync(path.join(out, "model.safetensors"))).toBe(false);
  });

  it("names the file that a size limit refused, and keeps the previous checkpoint", () => {
    const out = path.join(folder, "full");
    expect(trained(file, "--out", `${out}/`, "--set", "training.steps=3")).toMatchObject({
      code: 0,
    });
    expect(JSON.parse(readFileSync(path.join(out, "model.json"), "utf8"))).toMatchObject({
      name: "full",
    });
    const before = readFileSync(path.join(out, "checkpoints/step-00000003/state.safetensors"));
    // No file may grow beyond 64 KiB, as when the disk is full.
    const limited = spawnSync(
      "bash",
      [
        "-c",
        'trap "" XFSZ; ulimit -f 64; exec "$@"',
        "bash",
        process.execPath,
        ...command(file, "--out", out, "--resume"),
      ],
      { cwd: root, encoding: "utf8" },
    );
    expect(limited.status).toBe(1);
    expect(limited.stderr).toMatch(
      /patchwise: Cannot write .*state\.safetensors \(nothing is left behind\): /,
    );
    expect(checkpoints("full")).toEqual(["step-00000003"]);
    expect(
      readFileSync(path.join(out, "checkpoints/step-00000003/state.safetensors")).equals(before),
    ).toBe(true);
    const last = trained(file, "--out", out, "--resume", "--json");
    expect(JSON.parse(last.out)).toMatchObject({ steps: 40, finished: true });
  });

  it("starts in a folder where another training ended before its first checkpoint", () => {
    const out = path.join(folder, "begun");
    mkdirSync(out, { recursive: true });
    writeFileSync(path.join(out, "config.json"), '{"name":"another"}');
    const { code, out: text } = trained(file, "--out", out, "--json");
    expect(code).toBe(0);
    expect(JSON.parse(text)).toMatchObject({ finished: true });
    expect(readFileSync(path.join(out, "config.json"), "utf8")).not.toContain("another");
  });

  it.each([
    [
      "a folder that contains a training",
      ["--out", whole],
      /holds a training of 40 steps; resume it with --resume, or choose another folder/,
    ],
    [
      "another config",
      ["--out", whole, "--resume", "--set", "training.batch=5", "--set", "model.hidden=48"],
      /started with another config \(.*training\.batch was 4 and is 5.*\)/,
    ],
    [
      "nothing to resume",
      ["--out", path.join(folder, "none"), "--resume"],
      /There is no training in .*none to resume; leave out --resume/,
    ],
    [
      "an unknown device",
      ["--out", path.join(folder, "none"), "--device", "tpu"],
      /The device tpu does not exist; expected one of cpu/,
    ],
    [
      "an empty folder",
      ["--out", path.join(folder, "none"), "--set", `data.path=${folder}/none`],
      /none/,
    ],
    [
      "a patch that does not fit",
      ["--out", path.join(folder, "none"), "--set", "model.patch=3"],
      /a picture of 8×8 cannot be cut into patches of 3×3/,
    ],
    [
      "missing captions",
      ["--out", path.join(folder, "none"), "--set", "model.condition=text"],
      /has no captions; set model\.condition to class/,
    ],
    [
      "samples of an unknown class",
      ["--out", path.join(folder, "none"), "--set", "samples.of=[acros]"],
      /samples\.of has "acros", which is not a class of the data; did you mean across\?/,
    ],
    ["a folder below a file", ["--out", path.join(file, "out")], /patchwise: .*stripes\.yaml/],
  ])("refuses %s with a one-line error, and leaves nothing behind", (_, args, sentence) => {
    const { code, out, err } = trained(file, ...args);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err.trim().split("\n").at(-1)).toMatch(sentence);
    expect(existsSync(path.join(folder, "none"))).toBe(false);
  });

  it("counts and names unreadable pictures", () => {
    const mixed = path.join(folder, "mixed");
    cpSync(photos, mixed, { recursive: true });
    writeFileSync(path.join(mixed, "down", "broken.png"), "this is no picture");
    const { code, out, err } = trained(
      file,
      "--out",
      path.join(folder, "skipping"),
      "--json",
      "--set",
      `data.path=${mixed}`,
      "--set",
      "training.steps=4",
    );
    expect(code).toBe(0);
    const [skipped] = (JSON.parse(out) as { skipped: { name: string }[] }).skipped;
    expect(skipped!.name).toContain("broken.png");
    const line = /^Skipped 1 unreadable picture: .*$/m.exec(err)![0];
    expect(line.split("broken.png")).toHaveLength(2);
  });
});
