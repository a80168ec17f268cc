/**
 * Writes the metrics of a training to its folder: as `metrics.jsonl` with a JSON object per line, and as event files for
 * TensorBoard (`events.out.tfevents.*`).
 */
import { type FileHandle, open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { pngShape } from "../../pictures/png-node.ts";
import { FormatError } from "../../engine/errors.ts";
import { writeFileAtomic } from "../../weights/sources/atomic-node.ts";
import { ifThere, system } from "../../weights/sources/system-error-node.ts";
import { encodeEvent, type TensorBoardEvent, tfRecord } from "./tensorboard.ts";

export interface Metrics {
  /**
   * Adds a line { step, time, …values }, with the time in seconds since 1970. NaN and infinity become null, as JSON requires.
   *
   * @throws PatchwiseError if writing fails, as do `image` and `close`
   */
  log(step: number, values: Readonly<Record<string, number>>): Promise<void>;
  /** Adds a PNG file to the images in TensorBoard. */
  image(step: number, tag: string, png: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

const linesFile = "metrics.jsonl";
const eventsPattern = /^events\.out\.tfevents\.(\d+)\./;

/**
 * Starts or continues the metrics in an existing folder. Lines of steps after `resumeFrom`, the step from which the training
 * resumes, are removed; for TensorBoard, a new event file invalidates those steps.
 *
 * @param options.resumeFrom 0 by default
 * @throws FormatError if an invalid line precedes lines that would be kept
 */
export async function openMetrics(
  directory: string,
  { resumeFrom = 0 }: { readonly resumeFrom?: number | undefined } = {},
): Promise<Metrics> {
  await cutLines(join(directory, linesFile), resumeFrom);
  const lines = await openAppended(join(directory, linesFile), "a");
  // If the second file cannot be opened, the first must not stay open.
  const events = await openEvents(directory).catch(async (error: unknown) => {
    await lines.handle.close();
    throw error;
  });
  const append = (step: number, what: TensorBoardEvent["what"]) =>
    events.append(tfRecord(encodeEvent({ wallTime: Date.now() / 1000, step, what })));
  // TensorBoard discards the events of earlier files from the step of START on, as when TensorFlow's own writer restarts.
  await append(0, { kind: "fileVersion", version: "brain.Event:2" });
  await append(resumeFrom + 1, { kind: "start" });
  return {
    async log(step, values) {
      const line = JSON.stringify({ step, time: Date.now() / 1000, ...values });
      await lines.append(`${line}\n`);
      await append(step, { kind: "scalars", values });
    },
    async image(step, tag, png) {
      const { width, height, channels } = pngShape(png, `the image ${tag}`);
      const image = { height, width, colorspace: channels, encoded: png };
      await append(step, { kind: "image", tag, image });
    },
    async close() {
      await Promise.all([lines.handle.close(), events.handle.close()]);
    },
  };
}

/** Removes the lines of steps after `last`, and an incomplete last line of a killed process. */
async function cutLines(path: string, last: number): Promise<void> {
  const text = await ifThere(`read ${path}`, readFile(path, "utf8"), "");
  const kept: string[] = [];
  let unread: number | undefined;
  for (const [i, line] of text.split("\n").slice(0, -1).entries()) {
    const step = stepOf(line);
    if (step === undefined) unread ??= i + 1;
    if (step === undefined || step > last) continue;
    if (unread !== undefined) {
      throw new FormatError(
        `Line ${unread} of ${path} is not a JSON object with a step; correct or remove it, then resume.`,
      );
    }
    kept.push(`${line}\n`);
  }
  const remaining = kept.join("");
  if (remaining !== text) await writeFileAtomic(path, new TextEncoder().encode(remaining));
}

function stepOf(line: string): number | undefined {
  try {
    const { step } = JSON.parse(line) as { step?: unknown };
    return typeof step === "number" ? step : undefined;
  } catch {
    return undefined;
  }
}

/** Opens a new event file. TensorBoard reads them in the order of their names, so its name must come after all others. */
async function openEvents(directory: string): Promise<Appended> {
  const begun = (await readdir(directory))
    .map((name) => eventsPattern.exec(name)?.[1])
    .filter((digits) => digits !== undefined)
    .map(Number);
  const time = Math.max(Math.floor(Date.now() / 1000), ...begun.map((seconds) => seconds + 1));
  return openAppended(join(directory, `events.out.tfevents.${time}.patchwise`), "ax");
}

interface Appended {
  readonly handle: FileHandle;
  append(content: string | Uint8Array): Promise<void>;
}

async function openAppended(path: string, flags: "a" | "ax"): Promise<Appended> {
  const handle = await system(`write ${path}`, open(path, flags));
  return { handle, append: (content) => system(`write ${path}`, handle.appendFile(content)) };
}
