/**
 * Evaluates a model on prompts with known answers: the model draws each prompt, the judge finds the nearest real emoji, and
 * every measure is computed for the drawings and for real pictures. Drawings are saved as they are made, so that an
 * interrupted evaluation can resume.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { packageFile } from "../engine/package-node.ts";
import type { EmojiStyle } from "../data/formats/emoji/captions.ts";
import type { EmojiPicture } from "../data/formats/emoji/emoji-node.ts";
import { joined } from "../engine/bytes.ts";
import { FormatError, UsageError } from "../engine/errors.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import type { Extractor } from "../evaluation/extractor.ts";
import { judgeBytes, judgeShape, traceJudge } from "../evaluation/judge.ts";
import type { EvaluationPrompt } from "../evaluation/prompts.ts";
import { fitPicture, readPictureFile } from "../pictures/decode-node.ts";
import { writePicture } from "../pictures/file-node.ts";
import type { Picture } from "../pictures/picture.ts";
import { closing } from "../weights/sources/closing.ts";
import { exists } from "../weights/sources/folder-node.ts";
import { openExtractorFile } from "./extractor-node.ts";
import { judgeFigures, type JudgeFigures, listRealEmoji, realEmoji } from "./emoji-gallery-node.ts";
import {
  type Drawings,
  realPicturesFor,
  type Reference,
  referenceOf,
  requireAnswers,
  type Scores,
  scoresOf,
  type Verdict,
  verdictsOf,
} from "./prompt-scores-node.ts";
import { createFolder } from "../weights/sources/system-error-node.ts";

/** A prompt with the seed that it is drawn with. */
export interface SeededPrompt extends EvaluationPrompt {
  readonly seed: number;
}

export interface EvaluateOptions {
  /** The name of the model. */
  readonly model: string;
  readonly prompts: readonly SeededPrompt[];
  /** Draws one prompt. */
  readonly draw: (prompt: SeededPrompt) => Promise<Picture>;
  /** The styles that the model was trained on. */
  readonly styles: readonly EmojiStyle[];
  /** The real emoji to compare with; all by default. */
  readonly real?: readonly EmojiPicture[];
  /** Runs the judge. */
  readonly backend: Backend;
  /** The folder for the drawings. */
  readonly out: string;
  readonly report: (event: EvaluateEvent) => void;
  readonly signal?: AbortSignal | undefined;
}

/** A progress event of an evaluation. */
export type EvaluateEvent = {
  /** The current phase: drawing the prompts, rasterising real emoji, or judging both. */
  readonly kind: "drawing" | "real" | "judging";
  readonly done: number;
  readonly of: number;
  readonly secondsLeft?: number | undefined;
};

export interface Evaluation extends Scores {
  readonly model: string;
  /** The judge's own accuracy on real pictures. */
  readonly judge: JudgeFigures;
  /**
   * The same measures with real pictures in place of the drawings, each excluded from the pictures it is compared with. They
   * show how a right drawing scores that does not closely resemble a known picture.
   */
  readonly real: Scores;
  /** The extractor of FID and KID. */
  readonly extractor: string;
  /** The mean time of a drawing of this run; null if an earlier run made all of them. */
  readonly secondsAnImage: number | null;
  /** The duration of this run. */
  readonly seconds: number;
}

export interface Evaluated {
  readonly evaluation: Evaluation;
  readonly pictures: readonly Picture[];
  readonly verdicts: readonly Verdict[];
  readonly reference: Reference;
}

/**
 * Evaluates a model.
 *
 * @throws UsageError if the folder holds drawings of another model, or an answer is not an emoji of the set; everything that
 *   `draw` throws; the signal's reason if aborted, after which the same call resumes
 */
export async function evaluate(options: EvaluateOptions): Promise<Evaluated> {
  const { model, prompts, styles, backend, report, signal } = options;
  const begun = performance.now();
  // Reports whatever is missing before hours of drawing.
  const list = options.real ?? (await listRealEmoji());
  requireAnswers(prompts, list, styles);
  const { pictures, secondsAnImage } = await drawPrompts(options);
  const set = await realEmoji(list, (done, of) => report({ kind: "real", done, of }), signal);
  report({ kind: "judging", done: 0, of: 3 });
  const judge = await openShippedJudge(backend);
  return closing({ close: () => judge.dispose() }, async () => {
    const { features: seen } = await judge.extractFeatures(set.pixels);
    report({ kind: "judging", done: 1, of: 3 });
    const figures = await judgeFigures(judge, set, seen);
    signal?.throwIfAborted();
    report({ kind: "judging", done: 2, of: 3 });
    const reference = referenceOf(set, seen, styles);
    const own = realPicturesFor(prompts, reference);
    const drawings = await judged(judge, pictures);
    const verdicts = verdictsOf(prompts, drawings, reference);
    const realDrawings = await judged(
      judge,
      own.map((index) => realPicture(reference, index)),
    );
    const real = { ...realDrawings, own };
    const scores = scoresOf(prompts, drawings, verdicts, reference, own);
    const evaluation = {
      model,
      ...scores,
      judge: figures,
      real: scoresOf(prompts, real, verdictsOf(prompts, real, reference), reference, own),
      extractor: figures.name,
      secondsAnImage,
      seconds: (performance.now() - begun) / 1000,
    };
    report({ kind: "judging", done: 3, of: 3 });
    return { evaluation, pictures, verdicts, reference };
  });
}

/** Returns a real emoji in the judge's size. */
export function realPicture({ set: { pixels } }: Reference, index: number): Picture {
  const own = pixels.subarray(index * judgeBytes, (index + 1) * judgeBytes);
  return { ...judgeShape, pixels: own };
}

/** Draws the prompts that no earlier run has drawn. */
async function drawPrompts({
  prompts,
  draw,
  out,
  report,
  signal,
}: EvaluateOptions): Promise<Pick<Evaluated, "pictures"> & { secondsAnImage: number | null }> {
  const folder = join(out, "drawings");
  const pictures: Picture[] = [];
  let [made, checked] = [0, false];
  const begun = performance.now();
  const seconds = () => (performance.now() - begun) / 1000;
  for (const [i, prompt] of prompts.entries()) {
    signal?.throwIfAborted();
    const secondsLeft = made > 0 ? (seconds() / made) * (prompts.length - i) : undefined;
    report({ kind: "drawing", done: i, of: prompts.length, secondsLeft });
    const path = join(folder, fileOf(prompt));
    const kept = (await exists(path)) ? await readPictureFile(path) : undefined;
    if (kept && checked) {
      pictures.push(kept);
      continue;
    }
    const picture = await draw(prompt);
    if (kept && !alike(picture, kept)) {
      throw new UsageError(
        `${folder} holds drawings of another model or other settings: ${prompt.prompt} is drawn differently now; choose another folder with --out, or remove this one.`,
      );
    }
    checked ||= kept !== undefined;
    pictures.push(picture);
    if (kept) continue;
    made++;
    await createFolder(folder);
    await writePicture(path, picture);
  }
  report({ kind: "drawing", done: prompts.length, of: prompts.length });
  return { pictures, secondsAnImage: made > 0 ? seconds() / made : null };
}

/** The file name of a drawing, which depends on its prompt and seed alone. */
function fileOf({ prompt, seed }: SeededPrompt): string {
  return `${seed}-${createHash("sha256").update(prompt).digest("hex").slice(0, 16)}.png`;
}

/** The largest difference, of 255, that rounding on another machine may cause. */
const ROUNDING = 4;

function alike(a: Picture, b: Picture): boolean {
  return (
    a.pixels.length === b.pixels.length &&
    a.width === b.width &&
    a.pixels.every((value, i) => Math.abs(value - b.pixels[i]!) <= ROUNDING)
  );
}

/** What the judge sees in pictures of any size. */
export async function judged(judge: Extractor, pictures: readonly Picture[]): Promise<Drawings> {
  const fitting = { fit: "contain", background: "white" } as const;
  const fitted: Uint8Array[] = [];
  for (const picture of pictures) fitted.push(await fitPicture(picture, judgeShape, fitting));
  const pixels = joined(fitted);
  return { pictures, pixels, seen: (await judge.extractFeatures(pixels)).features };
}

const judgeFile = packageFile("models/judge/judge.safetensors");

/** Opens the judge that is bundled with the package. */
export async function openShippedJudge(backend: Backend): Promise<Extractor> {
  if (await exists(judgeFile))
    return (await openExtractorFile(judgeFile, backend, traceJudge())).extractor;
  throw new FormatError(`${judgeFile} is missing; reinstall Patchwise.`);
}
