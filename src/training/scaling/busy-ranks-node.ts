/** Processes that take the steps of ranks until they are ended, so that a step can be measured while other cores do the same. */
import { UsageError } from "../../engine/errors.ts";
import { type Child, startChild } from "../../engine/runtime/child-node.ts";
import { type Failure, revive } from "../../engine/runtime/worker-protocol.ts";
import { closing } from "../../weights/sources/closing.ts";
import type { train } from "../run/train-node.ts";

/** The steps that a process takes. */
export interface BusyRank {
  readonly given: Parameters<typeof train>[0];
  /** The folder of the training, in which nothing is written. */
  readonly out: string;
  readonly threads: number;
  /** The number of ranks, of which the process is one. */
  readonly ranks: number;
  /** Examples of a step. */
  readonly rows: number;
}

export type FromBusyRank =
  | { readonly kind: "busy" }
  | { readonly kind: "refused"; readonly failure: Failure };

/**
 * Does something while all ranks but this process take steps.
 *
 * @throws UsageError if one of them ends; also the errors of opening the training
 */
export async function besideBusyRanks<T>(work: BusyRank, use: () => Promise<T>): Promise<T> {
  const others: Child<BusyRank>[] = [];
  const close = async () => void (await Promise.all(others.map((child) => child.end())));
  return closing(
    { close },
    () =>
      new Promise<T>((resolve, reject) => {
        let begun = 0;
        const heard = (message: unknown) => {
          const told = message as FromBusyRank;
          if (told.kind === "refused") reject(revive(told.failure));
          else if (++begun === others.length) use().then(resolve, reject);
        };
        const gone = (how: string) =>
          reject(
            new UsageError(
              `A process that computes beside the measured one ended (${how}), perhaps for want of memory; plan fewer ranks, or give --speed.`,
            ),
          );
        for (let rank = 1; rank < work.ranks; rank++) {
          others.push(startChild("training/scaling/busy-rank-process-node", heard, gone));
        }
        for (const child of others) child.send(work);
      }),
  );
}
