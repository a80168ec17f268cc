/** Commands that `mpirun` or `srun` started several times, as the ranks of one job. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Collective } from "../training/collective/collective.ts";
import { isSpokenFor, openMpi } from "../training/collective/mpi-node.ts";
import { watchPeers } from "../training/collective/peers-node.ts";

/** Milliseconds that other ranks leave to rank 0, which mostly fails for the same reason, to say why and to end the job. */
const PATIENCE = 3000;

/**
 * Runs the work of this rank, or of the only process. The process of a rank ends as MPI asks for: with the others if all went well
 * or was stopped, and with the whole job if this rank fails.
 */
export async function asRank(work: (collective?: Collective) => Promise<void>): Promise<void> {
  const job = await opened();
  if (job === "failed") return;
  if (!job) return work();
  const peers = await watchPeers(job);
  process.once("exit", (code) => {
    peers.leave();
    if (code === 0 || code === STOPPED) job.finish(code);
    // An abort ends the launcher too, so it gets a moment to print the error of this rank first.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, HEARD);
    job.abort(code);
  });
  try {
    await work(job);
  } catch (error) {
    if (job.rank > 0) {
      await sleep(PATIENCE);
      (error as Error).message = `Rank ${job.rank}: ${(error as Error).message}`;
    }
    throw error;
  }
}

/**
 * True in a rank whose error, from before MPI is there, the first one of its machine has and says too. It gets the time for that, since
 * some launchers end the job with the first process that fails.
 */
export async function isSaidByOther(): Promise<boolean> {
  if (!isSpokenFor()) return false;
  await sleep(PATIENCE);
  return true;
}

/** The ranks of this job; "failed" if they cannot be reached, and another process of this machine says so. */
async function opened(): Promise<ReturnType<typeof openMpi> | "failed"> {
  try {
    return openMpi();
  } catch (error) {
    if (!(await isSaidByOther())) throw error;
    process.exitCode = 2;
    return "failed";
  }
}

/** Milliseconds that a launcher has to pass on the error of a rank. */
const HEARD = 1000;

/** The exit code of a command that a signal stopped. */
const STOPPED = 130;
