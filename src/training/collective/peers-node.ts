/** Ranks of one machine that see when one of them is killed. MPI itself leaves the others waiting for it. */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Worker } from "node:worker_threads";
import { moduleFile } from "../../engine/package-node.ts";
import { type Collective, fromRank } from "./collective.ts";
import { system } from "../../weights/sources/system-error-node.ts";
import type { PeerSettings } from "./peers-worker-node.ts";

/** The other ranks of this machine, as far as they are watched. */
export interface Peers {
  /** Tells them that this rank ends by itself: at the end of the work, or for a reason that it has said. */
  leave(): void;
}

/**
 * Starts to watch the other ranks of this machine. When one ends without `leave`, a remaining one says so on stderr, and all end
 * within seconds. All ranks call it together.
 */
export async function watchPeers(collective: Collective): Promise<Peers> {
  const { rank, size } = collective;
  const hosts = Array.from({ length: size }, (_, each) =>
    fromRank(collective, each, each === rank ? hostname() : undefined),
  );
  const local = [...hosts.keys()].filter((each) => hosts[each] === hostname());
  let path = "";
  for (const host of new Set(hosts)) {
    const first = hosts.indexOf(host);
    const own = first === rank ? join(mkdtempSync(join(tmpdir(), "patchwise-")), "ranks") : "";
    const given = fromRank(collective, first, own);
    if (first === local[0]) path = given;
  }
  const leaving = new Int32Array(new SharedArrayBuffer(4));
  const start = async () => {
    const settings: PeerSettings = { rank, size, local, path, leaving };
    const worker = new Worker(moduleFile("training/collective/peers-worker-node"), {
      workerData: settings,
    });
    await system("watch the other ranks of this machine", once(worker, "message"));
    worker.unref();
    return worker;
  };
  const early = rank === local[0] ? await start() : undefined;
  together(collective);
  const worker = early ?? (await start());
  together(collective);
  // Connections stay without the name, and nothing is left behind by a process that is killed from now on.
  if (early) rmSync(dirname(path), { recursive: true });
  return {
    leave() {
      Atomics.store(leaving, 0, 1);
      worker.postMessage("leave", []);
    },
  };
}

/** Waits until all ranks are here. */
function together(collective: Collective): void {
  collective.sum(new Float64Array(1));
}
