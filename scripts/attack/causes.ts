/** Which failures of jobs an attack caused itself, and which lines a server may write under it. */
import type { AnyJob } from "../../src/server/wire.ts";

/** Something that the attack killed, at a time in milliseconds since 1970. */
export interface Deed {
  readonly killed: "drawing" | "training" | "server";
  readonly at: number;
}

/** Milliseconds between a kill and the time that the server writes down, on a busy machine. */
const LATE = 5000;

/**
 * Why a failed job failed.
 *
 * @param about.waited true if a client waited for the job on its connection
 * @returns the cause in a few words, and whether the attack brought it about: the server's word is not taken for it, the kills must fit
 */
export function causeOfFailure(
  { kind, error = "", created, ended = Date.now() }: AnyJob,
  about: { readonly deeds: readonly Deed[]; readonly waited: boolean },
): { readonly cause: string; readonly isOurs: boolean } {
  const kills = (killed: Deed["killed"]) =>
    about.deeds.filter(
      (each) => each.killed === killed && each.at > created && each.at < ended + LATE,
    ).length;
  if (/ended by itself \(SIGKILL\)/.test(error)) {
    const killed = kills(kind === "draw" ? "drawing" : "training");
    return { cause: "its process was killed twice", isOurs: killed >= 2 };
  }
  if (error.startsWith("The server ended, and with it the connection")) {
    return {
      cause: "the server was killed while its client waited",
      isOurs: about.waited && kills("server") > 0,
    };
  }
  const times = /^The server ended (\d+) times/.exec(error)?.[1];
  if (times !== undefined) {
    return {
      cause: `the server was killed ${times} times while it ran`,
      isOurs: kills("server") >= Number(times),
    };
  }
  return { cause: error, isOurs: false };
}

const expected = [
  /^Serving .* Ctrl-C ends\.$/,
  /^Ending: /,
  /^A process that draws ended by itself \(SIGKILL\)/,
  /^The process that trains ended by itself \(SIGKILL\)/,
];

/** Returns true if a server writes such a line to its standard error although nothing is wrong with it. */
export function isExpectedLine(line: string): boolean {
  return line.trim() === "" || expected.some((each) => each.test(line));
}
