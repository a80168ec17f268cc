/** A newcomer's first training of each kind: what it prints at its end is done as it stands. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Command } from "commander";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { parse, stringify } from "yaml";
import { readPictureFile } from "../../src/pictures/decode-node.ts";
import { openModel } from "../../src/pipelines/open/open-node.ts";
import { writePicture } from "../../src/pictures/file-node.ts";
import { addGenerate } from "../../src/cli/generate.ts";
import { addTrain } from "../../src/cli/train.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-first-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const at = (...parts: string[]) => path.join(scratch, ...parts);

const caption = "a red 'tulip'";

/** A dozen pictures of two classes, and a dozen with captions. */
beforeAll(async () => {
  const lines: string[] = [];
  for (let i = 0; i < 12; i++) {
    const pixels = new Uint8Array(16 * 16 * 3).fill(20 * i);
    const picture = { width: 16, height: 16, channels: 3, pixels } as const;
    for (const folder of [`flowers/${i % 2 === 0 ? "-rose" : "tulip"}`, "photos"]) {
      mkdirSync(at(folder), { recursive: true });
      await writePicture(at(folder, `${i}.png`), picture);
    }
    lines.push(JSON.stringify({ file_name: `${i}.png`, text: caption }));
  }
  writeFileSync(at("photos/metadata.jsonl"), lines.join("\n"));
});

const training = { steps: 2, batch: 4, warmUp: 1, threads: 1 };
const small = { patch: 4, hidden: 16, depth: 1, heads: 1, prompt: { depth: 1, length: 8 } };
const common = (data: string) => ({
  data: { kind: "images", path: at(data) },
  training,
  validation: { batches: 1 },
});
const whole = (data: string) => ({
  ...common(data),
  picture: { size: 16 },
  model: small,
  sampling: { steps: 2 },
  samples: { grids: 1, each: 2 },
});
const vq = { kind: "vq", hidden: 16, bottleneckBlocks: 1, latentChannels: 3, codebook: 12 };
const kl = { kind: "kl", widths: [8, 16], groups: 4, latentChannels: 2 };
const coder = (autoencoder: object) => ({
  ...common("photos"),
  picture: { size: 16 },
  autoencoder,
  samples: { grids: 1, pictures: 4 },
});

/** Runs a command in this process, where nothing has to be loaded again, and returns what it says on stderr. */
async function command(words: readonly string[]): Promise<string> {
  const program = new Command().exitOverride();
  for (const add of [addTrain, addGenerate]) add(program);
  let said = "";
  const spy = vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    said += String(text);
    return true;
  });
  try {
    await program.parseAsync(words, { from: "user" });
  } finally {
    spy.mockRestore();
  }
  return said;
}

/** Trains, and returns the last line that it prints. */
async function trained(name: string, config: object): Promise<string> {
  writeFileSync(at(`${name}.yaml`), stringify(config));
  const said = await command(["train", at(`${name}.yaml`), "--out", at(name)]);
  return said.trim().split("\n").at(-1)!;
}

/** Draws with the command of a line, which a shell has taken apart. */
async function draws(line: string): Promise<void> {
  const printed = /draw with: patchwise (generate .*)$/.exec(line)![1]!;
  const shell = spawnSync("sh", ["-c", `printf '%s\\n' ${printed}`], { encoding: "utf8" });
  const [generate, ...words] = shell.stdout.trim().split("\n");
  await command([generate!, "--out", at("drawn.png"), ...words]);
  expect(await readPictureFile(at("drawn.png"), "white")).toMatchObject({ width: 16, height: 16 });
  rmSync(at("drawn.png"));
}

it("says that a training has no model yet", async () => {
  mkdirSync(at("begun"));
  for (const file of ["config.json", "metrics.jsonl"]) writeFileSync(at("begun", file), "{}\n");
  await expect(openModel(at("begun"))).rejects.toThrow("holds a training that has saved no model");
});

describe("the last line of a training", () => {
  it("of classes draws the first of them", async () => {
    const line = await trained("classes", whole("flowers"));
    expect(line).toMatch(/draw with: patchwise generate --model \S+classes --class=-rose$/);
    await draws(line);
    const grid = await readPictureFile(at("classes/samples/step-00000002.png"), "white");
    // Two classes, two pictures of each at four times their size, and a line of text above each row.
    expect(grid).toMatchObject({ width: 2 * 66 - 2, height: 2 * (66 + 10) - 2 });
  });

  it("of prompts draws the first caption, and that of a LoRA on it as well", async () => {
    const line = await trained("prompts", whole("photos"));
    expect(line).toContain(`draw with: patchwise generate --model ${at("prompts")} -- 'a red `);
    await draws(line);
    const lora = { ...common("photos"), base: at("prompts"), lora: { rank: 2 } };
    const other = await trained("style", { ...lora, samples: { grids: 1, each: 1 } });
    expect(other).toContain(`--model ${at("prompts")} --lora ${at("style")} -- `);
    await draws(other);
    expect(readdirSync(at("style/samples"))).toEqual(["step-00000002.png"]);
  });

  it.each([
    ["tokens", vq],
    ["latents", kl],
  ])("of an autoencoder is what a config for %s needs", async (name, autoencoder) => {
    const line = await trained(autoencoder.kind, coder(autoencoder));
    await expect(openModel(at(autoencoder.kind))).rejects.toThrow(
      "holds an autoencoder, which draws nothing by itself",
    );
    const fields = parse(/adding to its config: (.*)$/.exec(line)![1]!) as object;
    const model = { ...small, patch: 2 };
    await draws(await trained(name, { ...whole("flowers"), model, ...fields }));
    const grid = `${autoencoder.kind}/samples/step-00000002.png`;
    expect(await readPictureFile(at(grid), "white")).toMatchObject({ width: 4 * 66 - 2 });
  });
});
