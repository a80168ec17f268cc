/** A line that tells how far a command is: rewritten in place in a terminal, written anew now and then elsewhere. */

/** What of process.stderr is needed. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export interface ProgressWriter {
  /** Shows the line of the moment, unless the last one is too young. */
  update(text: string): void;
  /** Writes a line that stays. */
  line(text: string): void;
  /** Leaves the last line of the moment standing; further lines may follow. */
  end(): void;
}

export interface ProgressOptions {
  /** Seconds between two lines where they cannot be rewritten; 10 unless given. */
  readonly every?: number;
  /** Seconds of a clock that only goes forward. */
  readonly now?: () => number;
}

/** More often no one sees it, and a slow connection would hold up the work. */
const REWRITTEN_EVERY = 0.1;

const clear = "\r\x1b[K";

/** A writer for a stream, which is process.stderr unless something tests it. */
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
    stream.write(inPlace ? clear + clip(latest, stream.columns ?? 80) : `${latest}\n`);
    shown = latest;
    shownAt = now();
  };
  return {
    update(text) {
      latest = text;
      if (now() - shownAt >= pause) show();
    },
    line(text) {
      const covered = inPlace && shown !== "";
      stream.write(`${covered ? clear : ""}${text}\n`);
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
