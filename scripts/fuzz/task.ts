/** What `scripts/fuzz.ts` and its children tell each other. */

/** What a child is told. */
export interface Task {
  /** URL of the module of a target. */
  readonly target: string;
  readonly seed: number;
  readonly from: number;
  readonly count: number;
  /** Time of day in milliseconds at which it ends at the latest. */
  readonly until: number;
  readonly folder: string;
  /** The file whose first 8 bytes are the number of the current input. */
  readonly progress: string;
  /** Bytes of memory that the process may take at most. */
  readonly memory: number;
}

/** What a child answers. */
export type Report =
  | { readonly kind: "flaw"; readonly index: number; readonly flaw: string }
  | {
      readonly kind: "end";
      readonly next: number;
      readonly accepted: number;
      /** Kinds of messages. */
      readonly kinds: number;
      /** Most memory that the process ever had, in bytes. */
      readonly memory: number;
      /** Seconds of processor time that the inputs took. */
      readonly cpu: number;
      /** Seconds of processor time that the slowest input took. */
      readonly slowest: number;
    };

/** The exit code of a child whose target cannot be opened, or refuses sound files. */
export const BROKEN = 70;
