/** Ranks of one machine that a launcher leaves waiting when one of them is killed. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, it } from "vitest";
import type { PeerSettings } from "../../src/training/collective/peers-worker-node.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-peers-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const thread = path.resolve("dist/training/collective/peers-worker-node.js");

/** Starts the thread in a process that then waits for ever, as in a call of MPI. */
async function startRank(
  rank: number,
  name: string,
): Promise<{ process: ChildProcess; said: () => string }> {
  const settings: Omit<PeerSettings, "leaving"> = {
    rank,
    size: 8,
    local: [2, 5, 6],
    path: path.join(scratch, name),
  };
  const script = `
    const leaving = new Int32Array(new SharedArrayBuffer(4));
    const workerData = { ...${JSON.stringify(settings)}, leaving };
    const worker = new (require("node:worker_threads").Worker)(${JSON.stringify(thread)}, { workerData });
    worker.once("message", () => {
      require("node:fs").writeSync(1, "ready");
      Atomics.wait(leaving, 0, 0);
      while (true) Atomics.wait(leaving, 0, 1);
    });`;
  const started = spawn(process.execPath, ["--eval", script]);
  let said = "";
  started.stderr.on("data", (data: Buffer) => (said += data.toString()));
  await once(started.stdout, "data");
  return { process: started, said: () => said };
}

it.concurrent.each([
  { killed: 2, speaks: 5 },
  { killed: 6, speaks: 2 },
])(
  "end by themselves when rank $killed is killed, and rank $speaks says so",
  async ({ killed, speaks }) => {
    const ranks = new Map<number, Awaited<ReturnType<typeof startRank>>>();
    for (const rank of [2, 5, 6]) ranks.set(rank, await startRank(rank, `ranks-${killed}`));
    const ends = [...ranks.values()].map(({ process: rank }) => once(rank, "close"));
    ranks.get(killed)!.process.kill("SIGKILL");
    for (const end of await Promise.all(ends)) expect(end).toEqual([null, "SIGKILL"]);
    const words = [...ranks].filter(([, { said }]) => said() !== "");
    expect(words.map(([rank, { said }]) => [rank, said()])).toEqual([
      [
        speaks,
        `patchwise: Rank ${killed} of 8 was killed or has crashed, so all ranks end; checkpoints that were written are whole, and --resume continues from the last one.\n`,
      ],
    ]);
  },
  60_000,
);
