import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodePicture } from "../../src/pictures/decode-node.ts";
import { readPictureMetadata, writePicture } from "../../src/pictures/file-node.ts";
import { randomKey, uniform } from "../../src/engine/random/random.ts";
import { interrupted, oneSentence, patchwise } from "../support/cli.ts";
import { writeDiffusersDiT, writeOriginalDiT } from "../support/model-folders.ts";
import { tinyTextNetwork } from "../support/tiny-model.ts";
import { writeTrained } from "../support/trained-folder.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-generate-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

beforeAll(async () => {
  await writeTrained(at("classes"));
  await writeTrained(at("prompts"), tinyTextNetwork);
  await writeDiffusersDiT(at("diffusers"));
  await writeOriginalDiT(at("dit.safetensors"));
});

/** A folder to draw into. */
function room(name: string): string {
  mkdirSync(at(name));
  return at(name);
}

const classes = ["generate", "--model", at("classes"), "--class", "cat"];
const prompts = ["generate", "--model", at("prompts")];

function randomPixels(count: number): Uint8Array {
  return Uint8Array.from(uniform(randomKey(1), [count]).data, (value) => 256 * value);
}

async function pixels(file: string, width = 8, height = 8): Promise<Uint8Array> {
  const shape = { width, height, channels: 3 as const };
  return decodePicture(readFileSync(file), file, shape, { fit: "cover", background: "white" });
}

describe("patchwise generate", () => {
  it("writes a file under the next free name, and prints the name", () => {
    const cwd = room("names");
    const first = patchwise([...classes, "--seed", "3"], cwd);
    expect(first).toMatchObject({ code: 0, out: "picture.png\n" });
    expect(first.err).toMatch(/^Drawn in \d+\.\d s with seed 3\.$/m);
    expect(patchwise([...classes, "--seed", "3"], cwd).out).toBe("picture-2.png\n");
    expect(readdirSync(cwd).toSorted()).toEqual(["picture-2.png", "picture.png"]);
    expect(readFileSync(path.join(cwd, "picture.png"))).toEqual(
      readFileSync(path.join(cwd, "picture-2.png")),
    );
  });

  it("records the settings in the picture, and draws it again from them", async () => {
    const cwd = room("again");
    const drawn = patchwise(
      [
        ...prompts,
        "a red cat",
        "--negative",
        "blue",
        "--seed",
        "7",
        "--steps",
        "3",
        "--guidance",
        "1.5",
        "--sampler",
        "heun",
        "--size",
        "12x8",
        "--out",
        "cat.webp",
      ],
      cwd,
    );
    expect(drawn).toMatchObject({ code: 0, out: "cat.webp\n" });
    const metadata = await readPictureMetadata(path.join(cwd, "cat.webp"));
    expect(metadata).toMatchObject({
      prompt: "a red cat",
      negativePrompt: "blue",
      seed: 7,
      steps: 3,
      guidance: 1.5,
      sampler: "heun",
      width: 12,
      height: 8,
      model: "prompts",
    });
    const again = ["generate", "--from-image", "cat.webp", "--model", at("prompts")];
    expect(patchwise([...again, "--out", "same.png"], cwd).code).toBe(0);
    const [cat, same] = ["cat.webp", "same.png"].map((file) => path.join(cwd, file));
    expect(await pixels(same!, 12)).toEqual(await pixels(cat!, 12));
    expect(await readPictureMetadata(same!)).toEqual(metadata);
    // What is typed comes first.
    expect(patchwise([...again, "a dog", "--seed", "8", "--out", "other.png"], cwd).code).toBe(0);
    expect(await readPictureMetadata(path.join(cwd, "other.png"))).toEqual({
      ...metadata,
      prompt: "a dog",
      seed: 8,
    });
  });

  it("draws from an image and a mask, and again from the recorded settings", async () => {
    const cwd = room("image");
    const file = (name: string) => path.join(cwd, name);
    const image = randomPixels(8 * 8 * 3);
    const shape = { width: 8, height: 8, channels: 3 as const };
    await writePicture(file("photo.png"), { ...shape, pixels: image });
    const mask = image.map((_, i) => (Math.floor(i / 3) % 8 < 4 ? 255 : 0));
    await writePicture(file("mask.png"), { ...shape, pixels: mask });
    const given = ["--image", "photo.png", "--strength", "0.75", "--mask", "mask.png"];
    const details = ["--shift", "2", "--rescale", "0.5", "--guidance-interval", "0.1,9"];
    const drawn = patchwise([...classes, ...given, ...details, "--json", "--out", "a.png"], cwd);
    expect(JSON.parse(drawn.out)).toMatchObject({ strength: 0.75, masked: true, size: [8, 8] });
    const few = [...classes, "--image", "photo.png", "--strength", "0.9", "--steps", "10"];
    const report = JSON.parse(patchwise([...few, "--json", "--out", "few.png"], cwd).out);
    expect(report).toMatchObject({ steps: 9, ofSteps: 10 });
    expect(await readPictureMetadata(file("few.png"))).toMatchObject({ steps: 10 });
    const metadata = await readPictureMetadata(file("a.png"));
    expect(metadata).toMatchObject({
      strength: 0.75,
      masked: true,
      shift: 2,
      rescale: 0.5,
      guidanceInterval: [0.1, 9],
    });
    const kept = (pixel: number, i: number) => mask[i] === 0 && pixel === image[i];
    expect((await pixels(file("a.png"))).filter(kept).length).toBe(96);

    const again = ["generate", "--from-image", "a.png", "--model", at("classes")];
    const same = [...again, "--image", "photo.png", "--mask", "mask.png", "--out", "b.png"];
    expect(patchwise(same, cwd).code).toBe(0);
    expect(readFileSync(file("b.png"))).toEqual(readFileSync(file("a.png")));
    expect(patchwise(again, cwd)).toMatchObject({
      code: 2,
      err: expect.stringMatching(/drawn from an image, at a strength of 0.75, .* as --image/),
    });
    expect(patchwise([...again, "--image", "photo.png"], cwd)).toMatchObject({
      code: 2,
      err: expect.stringMatching(/in the mask of an image, .* give the mask as --mask/),
    });
  });

  it("draws several pictures, each the same as alone, and a grid", async () => {
    const cwd = room("several");
    const together = patchwise(
      [...classes, "--seed", "3", "--count", "3", "--grid", "--json", "--out", "cat.png"],
      cwd,
    );
    expect(together.code).toBe(0);
    const report = JSON.parse(together.out);
    expect(report).toEqual({
      files: ["cat-1.png", "cat-2.png", "cat-3.png"],
      grid: "cat-grid.png",
      seeds: [3, 4, 5],
      model: "classes",
      class: "cat",
      steps: 4,
      guidance: 2,
      sampler: "euler",
      width: 8,
      height: 8,
      size: [8, 8],
      seconds: expect.any(Number),
      warnings: [],
    });
    expect(readdirSync(cwd)).toHaveLength(4);
    expect(patchwise([...classes, "--seed", "4", "--out", "alone.png"], cwd).code).toBe(0);
    const [second, alone] = await Promise.all(
      ["cat-2.png", "alone.png"].map((file) => pixels(path.join(cwd, file))),
    );
    const apart = second!.map((value, i) => Math.abs(value - alone![i]!));
    expect(Math.max(...apart)).toBeLessThanOrEqual(1);
  });

  it("draws with a diffusers folder and with an original checkpoint", () => {
    const cwd = room("layouts");
    const json = (...args: string[]) =>
      JSON.parse(patchwise(["generate", ...args, "--steps", "2", "--json"], cwd).out);
    expect(json("--model", at("diffusers"), "--class", "tench")).toMatchObject({
      class: "tench",
      size: [8, 8],
      sampler: "ddpm",
    });
    const vae = at("diffusers/vae");
    expect(json("--model", at("dit.safetensors"), "--vae", vae, "--class", "1")).toMatchObject({
      class: "1",
      guidedChannels: 3,
    });
  });

  it("warns about text past the token limit", () => {
    const cwd = room("heard");
    const { code, err } = patchwise([...prompts, "a red cat on the moon", "--steps", "1"], cwd);
    expect(code).toBe(0);
    expect(err).toContain("Warning: The prompt is longer than the 4 tokens that prompts reads;");
  });

  it("stops at Ctrl-C and leaves nothing behind", async () => {
    const cwd = room("stopped");
    const { code, out, err } = await interrupted([...classes, "--steps", "100000"], /step/, cwd);
    expect({ code, out }).toEqual({ code: 130, out: "" });
    expect(err).toMatch(/^Stopped; nothing was written\.$/m);
    expect(readdirSync(cwd)).toEqual([]);
  });
});

describe("patchwise generate refuses with a one-line error and exit code 2:", () => {
  const cwd = () => at("refused");
  beforeAll(() => {
    room("refused");
    writeFileSync(at("refused/plain.png"), "no picture");
  });

  it.each<[string, string[], RegExp]>([
    ["an unknown model", ["generate", "x", "--model", "nowhere"], /no model "nowhere"/],
    ["an unknown class", [...classes, "--class", "cta"], /no class "cta"; the nearest are cat/],
    ["an unknown sampler", [...classes, "--sampler", "eular"], /did you mean euler/],
    [
      "a negative seed",
      [...classes, "--seed", "-1"],
      /seed must be a whole number from 0 to \d+, got -1\./,
    ],
    [
      "a fractional seed",
      [...classes, "--seed", "1.5"],
      /seed must be a whole number from 0 to \d+, got 1\.5\./,
    ],
    ["parts of patches", [...classes, "--size", "10x8"], /multiples of 4, such as 12×8\./],
    ["a missing device", [...classes, "--device", "coreml"], /device coreml is not available/],
    ["a missing folder", [...classes, "--out", "no/a.png"], /into the folder no: .*ENOENT/],
    ["a folder as file", [...classes, "--out", ".", "--json"], /Cannot write/],
    ["an image that is none", [...classes, "--image", "plain.png"], /plain\.png cannot be read/],
    ["a missing image", [...classes, "--image", "no.png"], /the picture no\.png: .*ENOENT/],
    [
      "a strength without an image",
      [...classes, "--strength", "0.5"],
      /A strength of 0\.5 needs an image/,
    ],
    ["half an interval", [...classes, "--guidance-interval", "2"], /two numbers, such as 0.1,0.5/],
    ["no layers", [...classes, "--skip-guidance", "2"], /skipLayers must be an object of layers/],
    ["layers of a DiT", [...classes, "--skip-layers", "1"], /it is a dit, and only an mmdit/],
    ["a picture of no settings", [...classes, "--from-image", "plain.png"], /plain\.png/],
  ])("%s", (_, args, sentence) => {
    const { code, err } = patchwise(args, cwd());
    expect(err).toMatch(oneSentence);
    expect(err).toMatch(sentence);
    expect(code).toBe(2);
    expect(readdirSync(cwd())).toEqual(["plain.png"]);
  });
});

it.runIf(process.platform === "linux")(
  "refuses a command line that ONNX Runtime cannot take",
  () => {
    const { code, err } = patchwise(["generate", "a".repeat(30_000)], scratch);
    expect(code).toBe(2);
    expect(err).toMatch(oneSentence);
    expect(err).toContain("more than the 20000 that ONNX Runtime can take");
  },
);
