/**
 * What a training measures, in its folder: `metrics.jsonl`, a JSON object a line, and event files that TensorBoard shows
 * (`events.out.tfevents.*`).
 */
import { type FileHandle, open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { pngShape } from "../../pictures/png-node.ts";
import { FormatError, PatchwiseError } from "../../engine/errors.ts";
import { writeFileAtomic } from "../../weights/sources/atomic-node.ts";
import { describeSystemError } from "../../weights/sources/system-error-node.ts";
import { encodeEvent, type TensorBoardEvent, tfRecord } from "./tensorboard.ts";

export interface Metrics {
  /**
   * Adds a line { step, time, …values }, with the time in seconds since 1970; a value that is no finite number is null
   * there, as JSON has none.
   *
   * @throws PatchwiseError when the disk refuses, as all three do
   */
  log(step: number, values: Readonly<Record<string, number>>): Promise<void>;
  /** Shows a PNG file in TensorBoard. */
  image(step: number, tag: string, png: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

const linesFile = "metrics.jsonl";
const eventsPattern = /^events\.out\.tfevents\.(\d+)\./;

/**
 * Begins or goes on with the metrics in an existing folder. What an interrupted training measured after `resumeFrom`, the
 * step that it goes on from (0 unless given), is cut away from the lines; to TensorBoard a new event file says that it
 * no longer holds.
 *
 * @throws FormatError when lines that would be kept follow one which is none of ours
 */
export async function openMetrics(
  directory: string,
  { resumeFrom = 0 }: { readonly resumeFrom?: number | undefined } = {},
): Promise<Metrics> {
  await cutLines(join(directory, linesFile), resumeFrom);
  const lines = await openAppended(join(directory, linesFile), "a");
  // One that is half open does not stay so.
  const events = await openEvents(directory).catch(async (error: unknown) => {
    await lines.handle.close();
    throw error;
  });
  const tell = (step: number, what: TensorBoardEvent["what"]) =>
    events.append(tfRecord(encodeEvent({ wallTime: Date.now() / 1000, step, what })));
  // As TensorFlow's own writer restarts: TensorBoard drops what earlier files tell of the step of START and later ones.
  await tell(0, { kind: "fileVersion", version: "brain.Event:2" });
  await tell(resumeFrom + 1, { kind: "start" });
  return {
    async log(step, values) {
      const line = JSON.stringify({ step, time: Date.now() / 1000, ...values });
      await lines.append(`${line}\n`);
      await tell(step, { kind: "scalars", values });
    },
    async image(step, tag, png) {
      const { width, height, channels } = pngShape(png, `the image ${tag}`);
      const image = { height, width, colorspace: channels, encoded: png };
      await tell(step, { kind: "image", tag, image });
    },
    async close() {
      await Promise.all([lines.handle.close(), events.handle.close()]);
    },
  };
}

/** Leaves the lines up to `last`; what a kill left half-written goes too. */
async function cutLines(path: string, last: number): Promise<void> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw new PatchwiseError(`Cannot read ${path}: ${describeSystemError(error)}.`, {
      cause: error,
    });
  });
  const kept: string[] = [];
  let unread: number | undefined;
  for (const [i, line] of text.split("\n").slice(0, -1).entries()) {
    const step = stepOf(line);
    if (step === undefined) unread ??= i + 1;
    if (step === undefined || step > last) continue;
    if (unread !== undefined) {
      throw new FormatError(
        `Line ${unread} of ${path} is not a JSON object with a step; mend or remove it to go on.`,
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

/** TensorBoard reads event files in the order of their names, so that a new one has to come after all others. */
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
  const attempt = <T>(step: Promise<T>): Promise<T> =>
    step.catch((error: unknown) => {
      throw new PatchwiseError(`Cannot write ${path}: ${describeSystemError(error)}.`, {
        cause: error,
      });
    });
  const handle = await attempt(open(path, flags));
  return { handle, append: (content) => attempt(handle.appendFile(content)) };
}
