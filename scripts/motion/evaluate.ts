/**
 * Judges the bundled model of clips by 200 clips of known emoji, each in one of the motions:
 *
 *   node scripts/run.mjs scripts/motion/evaluate.ts --model emoji-motion --out runs/motion-evaluation
 *
 * It prints, and writes to `motion.json`, how often a classifier of motions recognises the motion that was asked for, beside real clips of
 * held-out emoji and the same ones with shuffled frames; how often the judge of pictures recognises the emoji in the first frame; and how
 * much neighbouring frames differ, beside real clips. Then it rolls out clips of 64 frames, and writes how far they are from the real ones in
 * `drift.json` and `drift.svg`, and 12 clips, which nobody has chosen, as a sheet.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import sharp from "sharp";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { fork, permutation, randomKey } from "../../src/engine/random/random.ts";
import { type MotionName, motionNames, poseAt, wordOf } from "../../src/data/motions.ts";
import { nearestNamesOf, rankOf } from "../../src/evaluation/retrieval.ts";
import { judgeBytes, judgeShape, traceJudge } from "../../src/evaluation/judge.ts";
import { openExtractorFile } from "../../src/comparison/extractor-node.ts";
import { openPipeline } from "../../src/pipelines/index-node.ts";
import { finished } from "../../src/pipelines/index.ts";
import { type Clip, picturesOfClip } from "../../src/pictures/clip.ts";
import { type Drawing, drawings, SIDE, styles } from "../emoji/pictures.ts";
import { openClassifier, realClips } from "./classifier.ts";
import { framesInMotion, isPairHeldOut, onWhite, PERIOD } from "./clips.ts";

const { values: given } = parseArgs({
  options: {
    model: { type: "string", default: "emoji-motion" },
    out: { type: "string" },
    clips: { type: "string", default: "200" },
    steps: { type: "string" },
    "classifier-steps": { type: "string", default: "300" },
    "long-clips": { type: "string", default: "14" },
  },
});
const out = given.out!;
const COUNT = Number(given.clips);
const steps = given.steps === undefined ? {} : { steps: Number(given.steps) };
/** The length of the rolled-out clips: eight times what is learned at a time, and four periods. */
const LONG = 4 * PERIOD;
const SHEET = 12;
await mkdir(out, { recursive: true });
const backend = nodeBackend("cpu");
const all = (await drawings()).filter(({ style }) => style === styles[0]);
const known = all.filter(({ heldOut }) => !heldOut);
const heldOut = all.filter((each) => each.heldOut);
const classify = await openClassifier(
  backend,
  join(out, "classifier.safetensors"),
  known,
  Number(given["classifier-steps"]),
);
const report: Record<string, unknown> = { clips: COUNT };
await judgeClassifier();
await using pipeline = await openPipeline(given.model);
report["steps"] = pipeline.settings({ prompt: "a cat", ...steps }).steps;

/** A clip that was asked for, and what it should be. */
interface Asked {
  readonly drawing: Drawing;
  readonly motion: MotionName;
  readonly prompt: string;
}

const asked = Array.from({ length: COUNT }, (_, i): Asked => {
  const drawing = known[Math.floor(((i + 0.5) * known.length) / COUNT)]!;
  const motion = motionNames[i % motionNames.length]!;
  return { drawing, motion, prompt: `${wordOf(motion)} ${drawing.label}` };
});
const clips: Clip[] = [];
for (const [i, { prompt }] of asked.entries()) {
  const request = { prompt, frames: PERIOD, seed: i, ...steps };
  clips.push((await finished(pipeline.generate(request)))[0]!.clip!);
  if ((i + 1) % 10 === 0) console.log(`${i + 1} of ${COUNT} clips`);
}
await judgeMotion();
await judgeSubjects();
judgeChange();
await writeReport();
await writeClips();
await rollOut();
await writeReport();

function percent(share: number): number {
  return Math.round(1000 * share) / 10;
}

async function writeReport(): Promise<void> {
  await writeFile(join(out, "motion.json"), `${JSON.stringify(report, undefined, 2)}\n`);
  console.log(JSON.stringify(report));
}

/** The classifier on real clips of emoji that it has not seen, and on the same ones with their frames in another order. */
async function judgeClassifier(): Promise<void> {
  const real = realClips(heldOut, fork(randomKey(10), "held out"), 280);
  const right = (found: readonly MotionName[]) =>
    percent(found.filter((motion, i) => motion === real[i]!.motion).length / real.length);
  report["classifierHeldOut"] = right(await classify(real.map(({ frames }) => frames)));
  const shuffled = real.map(({ frames }, i) =>
    Array.from(permutation(fork(fork(randomKey(11), "order"), i), PERIOD), (at) => frames[at]!),
  );
  report["classifierShuffled"] = right(await classify(shuffled));
  console.log(JSON.stringify(report));
}

function framesOfClip(clip: Clip): readonly Uint8Array[] {
  return picturesOfClip(clip).map(({ pixels }) => pixels);
}

async function judgeMotion(): Promise<void> {
  const found = await classify(clips.map(framesOfClip));
  const right = asked.map(({ motion }, i) => found[i] === motion);
  const shareOf = (chosen: readonly boolean[]) =>
    percent(chosen.filter(Boolean).length / chosen.length);
  report["motion"] = shareOf(right);
  report["motionOfEach"] = Object.fromEntries(
    motionNames.map((name) => [name, shareOf(right.filter((_, i) => asked[i]!.motion === name))]),
  );
  const pairs = right.filter((_, i) => isPairHeldOut(asked[i]!.drawing.hexcode, asked[i]!.motion));
  report["motionOfHeldOutPairs"] = { clips: pairs.length, right: shareOf(pairs) };
}

/** The judge on first frames, and on those of the real clips. The emoji, which moves, is cut out where it should be. */
async function judgeSubjects(): Promise<void> {
  const { extractor } = await openExtractorFile(
    "models/judge/judge.safetensors",
    backend,
    traceJudge(),
  );
  const gallery = await Promise.all(known.map(({ rgba }) => seen(onWhite(rgba), { scale: 1 })));
  const { features } = await extractor.extractFeatures(joined(gallery));
  const names = known.map(({ hexcode }) => hexcode);
  const scores = async (frames: readonly Uint8Array[]) => {
    const shown = await Promise.all(
      frames.map((frame, i) => seen(frame, poseAt(asked[i]!.motion, 0))),
    );
    const found = await extractor.extractFeatures(joined(shown));
    const ranks = asked.map(({ drawing }, i) =>
      rankOf(nearestNamesOf(found.features, i, { features, names }, 5), [drawing.hexcode]),
    );
    const share = (below: number) =>
      percent(ranks.filter((rank) => rank >= 0 && rank < below).length / ranks.length);
    return { top1: share(1), top5: share(5) };
  };
  report["subject"] = await scores(clips.map((clip) => framesOfClip(clip)[0]!));
  report["subjectOfReal"] = await scores(
    asked.map(
      ({ drawing, motion }) => framesInMotion(onWhite(drawing.rgba), motion, 0, 1)[0] as never,
    ),
  );
  await extractor.dispose();
}

/** The part of a frame where a pose has the picture, in the judge's size. */
async function seen(
  frame: ArrayLike<number>,
  { right = 0, down = 0, scale = 1 }: ReturnType<typeof poseAt>,
): Promise<Uint8Array> {
  const size = Math.round(scale * SIDE);
  const corner = (shift: number) =>
    Math.max(0, Math.min(SIDE - size, Math.round((SIDE - size) / 2 + (shift * SIDE) / 2)));
  return new Uint8Array(
    await sharp(Buffer.from(Uint8Array.from(frame)), {
      raw: { width: SIDE, height: SIDE, channels: 3 },
    })
      .extract({ left: corner(right), top: corner(down), width: size, height: size })
      .resize(judgeShape.width, judgeShape.height)
      .raw()
      .toBuffer(),
  );
}

function joined(pictures: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pictures.length * judgeBytes);
  for (const [i, pixels] of pictures.entries()) bytes.set(pixels, i * judgeBytes);
  return bytes;
}

/** The mean difference between neighbouring frames, of 255. */
function change(frames: readonly ArrayLike<number>[]): number {
  let sum = 0;
  for (let i = 1; i < frames.length; i++) sum += apart(frames[i]!, frames[i - 1]!);
  return sum / (frames.length - 1);
}

function apart(one: ArrayLike<number>, other: ArrayLike<number>): number {
  let sum = 0;
  for (let k = 0; k < one.length; k++) sum += Math.abs(one[k]! - other[k]!);
  return sum / one.length;
}

function judgeChange(): void {
  const ofEach = (value: (i: number) => number) =>
    Object.fromEntries(
      motionNames.map((name) => {
        const own = asked.flatMap(({ motion }, i) => (motion === name ? [value(i)] : []));
        return [name, own.reduce((sum, each) => sum + each, 0) / own.length];
      }),
    );
  const drawn = ofEach((i) => change(framesOfClip(clips[i]!)));
  const real = ofEach((i) =>
    change(framesInMotion(onWhite(asked[i]!.drawing.rgba), asked[i]!.motion, 0, PERIOD)),
  );
  const sum = (values: Record<string, number>) =>
    Object.values(values).reduce((total, each) => total + each, 0);
  report["change"] = { drawn, real, ratio: sum(drawn) / sum(real) };
}

/** Every clip of a sheet in eight frames; and its frames one by one as an animated file. */
async function writeClips(): Promise<void> {
  const every = PERIOD / 8;
  const rows = Math.min(SHEET, clips.length);
  const tiles = Array.from({ length: rows }, (_, row) => {
    const at = Math.floor(((row + 0.5) * clips.length) / rows);
    return framesOfClip(clips[at]!)
      .filter((__, i) => i % every === 0)
      .map((pixels, i) => ({
        input: Buffer.from(pixels),
        raw: { width: SIDE, height: SIDE, channels: 3 as const },
        left: ((row % 2) * 8 + i) * SIDE,
        top: Math.floor(row / 2) * SIDE,
      }));
  });
  const shown = Array.from(
    { length: rows },
    (_, row) => asked[Math.floor(((row + 0.5) * clips.length) / rows)]!.prompt,
  );
  report["sheet"] = shown;
  await sharp({
    create: {
      width: 16 * SIDE,
      height: Math.ceil(rows / 2) * SIDE,
      channels: 3,
      background: "white",
    },
  })
    .composite(tiles.flat())
    .png()
    .toFile(join(out, "clips.png"));
}

/** Clips of four periods: how far each frame is from the real one, and whether the motion is still recognised in each period. */
async function rollOut(): Promise<void> {
  const count = Number(given["long-clips"]);
  const chosen = Array.from({ length: count }, (_, i) => asked[Math.floor((i * COUNT) / count)]!);
  const errors = new Float64Array(LONG);
  const periods: (readonly Uint8Array[])[][] = Array.from({ length: LONG / PERIOD }, () => []);
  for (const [i, { prompt, drawing, motion }] of chosen.entries()) {
    const [drawn] = await finished(pipeline.generate({ prompt, frames: LONG, seed: i, ...steps }));
    const frames = framesOfClip(drawn!.clip!);
    const real = framesInMotion(onWhite(drawing.rgba), motion, 0, PERIOD);
    for (let frame = 0; frame < LONG; frame++) {
      errors[frame]! += apart(frames[frame]!, real[frame % PERIOD]!) / count;
    }
    for (const [p, of] of periods.entries()) of.push(frames.slice(p * PERIOD, (p + 1) * PERIOD));
    console.log(`${i + 1} of ${count} long clips`);
  }
  const recognised = await Promise.all(
    periods.map(async (of) => {
      const found = await classify(of);
      return percent(found.filter((name, i) => name === chosen[i]!.motion).length / of.length);
    }),
  );
  const meanOf = (p: number) =>
    errors.subarray(p * PERIOD, (p + 1) * PERIOD).reduce((sum, each) => sum + each, 0) / PERIOD;
  report["drift"] = {
    clips: count,
    errorOfEachPeriod: periods.map((_, p) => meanOf(p)),
    recognised,
  };
  await writeFile(join(out, "drift.json"), JSON.stringify([...errors]));
  await writeFile(join(out, "drift.svg"), plotOf(errors));
}

/** A plot of the errors of frames. */
function plotOf(errors: Float64Array): string {
  const [width, height, left, bottom] = [640, 240, 50, 40];
  const most = Math.ceil(Math.max(...errors) / 5) * 5;
  const x = (frame: number) => left + ((width - left - 15) * frame) / (errors.length - 1);
  const y = (value: number) => 15 + (height - bottom - 15) * (1 - value / most);
  const line = [...errors].map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const ticks = [0, most / 2, most]
    .map((value) => `<text x="${left - 6}" y="${y(value) + 4}" text-anchor="end">${value}</text>`)
    .join("");
  const starts = Array.from({ length: errors.length / PERIOD + 1 }, (_, i) =>
    Math.min(i * PERIOD, errors.length - 1),
  );
  const frames = starts
    .map((at) => `<text x="${x(at)}" y="${height - 22}" text-anchor="middle">${at}</text>`)
    .join("");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12"><rect width="${width}" height="${height}" fill="white"/><path d="M${left} 15V${height - bottom}H${width - 15}" fill="none" stroke="black"/><polyline points="${line}" fill="none" stroke="#c22" stroke-width="2"/>${ticks}${frames}<text x="${width / 2}" y="${height - 5}" text-anchor="middle">frame</text><text x="${left + 8}" y="14">mean difference from the real clip, of 255</text></svg>\n`;
}
