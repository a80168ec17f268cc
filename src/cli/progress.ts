/**
 * The progress of a command as one line of text: rewritten in place in a terminal, written again every few seconds elsewhere.
 */

import { counted, printable } from "../engine/errors.ts";

/** The part of process.stderr that a progress line needs. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export interface ProgressWriter {
  /** Replaces the progress line, unless the last update was too recent. */
  update(text: string): void;
  /** Writes a permanent line above the progress line. */
  line(text: string): void;
  /** Keeps the last progress line; more lines may follow. */
  end(): void;
}

export interface ProgressOptions {
  /** Seconds between two lines on streams that are not terminals; 10 by default. */
  readonly every?: number;
  /** The time in seconds, from a monotonic clock. */
  readonly now?: () => number;
}

/** Seconds between two rewrites, since more frequent ones would slow the work down on a slow connection. */
const REWRITTEN_EVERY = 0.1;

const clear = "\r\x1b[K";

/** Writes progress to a stream, which is process.stderr outside of tests. */
export function progressWriter(
  stream: ProgressStream,
  { every = 10, now = () => performance.now() / 1000 }: ProgressOptions = {},
): ProgressWriter {
  const inPlace = stream.isTTY === true && process.env["TERM"] !== "dumb";
  const pause = inPlace ? REWRITTEN_EVERY : every;
  let shownAt = -Infinity;
  let shown = "";
  let latest = "";

  const show = () => {
    // A line that wraps could not be rewritten.
    stream.write(inPlace ? clear + clip(latest, stream.columns || 80) : `${latest}\n`);
    shown = latest;
    shownAt = now();
  };
  return {
    update(text) {
      latest = printable(text);
      if (now() - shownAt >= pause) show();
    },
    line(text) {
      const covered = inPlace && shown !== "";
      stream.write(`${covered ? clear : ""}${printable(text)}\n`);
      if (covered) show();
    },
    end() {
      if (latest !== "" && latest !== shown) show();
      if (inPlace && shown !== "") stream.write("\n");
      [shown, latest] = ["", ""];
    },
  };
}

function clip(text: string, columns: number): string {
  return text.length < columns ? text : `${text.slice(0, columns - 2)}…`;
}

/** The progress of a task. */
export interface TaskProgress {
  /** Steps done. */
  readonly step: number;
  /** Steps of the whole task, if the number is known. */
  readonly steps?: number | undefined;
  readonly loss?: number | undefined;
  readonly imagesPerSecond?: number | undefined;
  /** Infinity before the first estimate. */
  readonly secondsLeft: number;
}

/** @example progressLine({ step: 30, steps: 120, loss: 0.25, imagesPerSecond: 412, secondsLeft: 90 }) // "step 30 of 120 (25 %)  loss 0.2500  412 images/s  1 min 30 s left" */
export function progressLine(progress: TaskProgress): string {
  const { step, steps, loss, imagesPerSecond, secondsLeft } = progress;
  const share = steps ? ` of ${steps} (${Math.floor((100 * step) / steps)} %)` : "";
  return [
    `step ${step}${share}`,
    loss === undefined ? undefined : `loss ${loss.toPrecision(4)}`,
    imagesPerSecond === undefined ? undefined : `${rate(imagesPerSecond)} images/s`,
    Number.isFinite(secondsLeft) ? `${duration(secondsLeft)} left` : undefined,
  ]
    .filter((part) => part !== undefined)
    .join("  ");
}

/** @example encodingLine({ done: 30, pictures: 120, secondsLeft: 90 }) // "encoded 30 of 120 pictures (25 %)  1 min 30 s left" */
export function encodingLine(progress: {
  readonly done: number;
  readonly pictures: number;
  readonly secondsLeft: number;
}): string {
  const { done, pictures, secondsLeft } = progress;
  return `encoded ${done} of ${counted(pictures, "picture")} (${Math.floor((100 * done) / pictures)} %)  ${duration(secondsLeft)} left`;
}

/** @example drawingLine({ done: 30, pictures: 120, perSecond: 4.2 }) // "30 of 120 pictures (25 %)  4.2 pictures/s  21 s left" */
export function drawingLine(progress: {
  readonly done: number;
  readonly pictures: number;
  /** 0 before the first picture. */
  readonly perSecond: number;
}): string {
  const { done, pictures, perSecond } = progress;
  const share = `${done} of ${counted(pictures, "picture")} (${Math.floor((100 * done) / pictures)} %)`;
  if (perSecond === 0) return share;
  return `${share}  ${rate(perSecond)} pictures/s  ${duration((pictures - done) / perSecond)} left`;
}

function rate(perSecond: number): string {
  return perSecond < 9.95 ? perSecond.toPrecision(2) : perSecond.toFixed(0);
}

/** Formats a duration in its two largest units. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [minutes, hours, days] = [
    Math.floor(whole / 60),
    Math.floor(whole / 3600),
    Math.floor(whole / 86400),
  ];
  if (minutes === 0) return `${whole} s`;
  if (hours === 0) return `${minutes} min ${whole % 60} s`;
  if (days === 0) return `${hours} h ${minutes % 60} min`;
  return `${days} d ${hours % 24} h`;
}
