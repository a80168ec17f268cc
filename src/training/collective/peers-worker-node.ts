/**
 * The thread of a rank that sees when another rank of this machine ends without a word, while the rank's own thread waits for it in a
 * call of MPI. The system closes the connections of a process however it ends. The first rank of a machine has a connection to each
 * other one.
 */
import { writeSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { parentPort, workerData } from "node:worker_threads";

/** What the thread of a rank is given. */
export interface PeerSettings {
  readonly rank: number;
  readonly size: number;
  /** The ranks of this machine, in order. */
  readonly local: readonly number[];
  /** The socket of the first one. */
  readonly path: string;
  /** 1 as soon as this rank ends by itself. */
  readonly leaving: Int32Array;
}

/** Milliseconds that the launcher has to end the other ranks, which some do not. */
const PATIENCE = 5000;

const { rank, size, local, path, leaving } = workerData as PeerSettings;
const [first, second] = local;
const port = parentPort!;

/** Words between ranks: this one ends by itself; another one is lost, which was said, so all have to end. */
const LEAVING = "leaving";
const LOST = "lost";

/** The connections to other ranks. */
const connections = new Set<Socket>();

function tellOthers(word: string): void {
  for (const socket of connections) socket.write(word);
}

/** Ends this rank soon if the launcher does not. */
function end(): void {
  Atomics.store(leaving, 0, 1);
  setTimeout(() => process.kill(process.pid, "SIGKILL"), PATIENCE);
}

/** Tells the user, if no other rank does, and the other ranks. */
function lost(other: number): void {
  if (Atomics.load(leaving, 0) > 0) return;
  if (rank === first || rank === second) {
    writeSync(
      2,
      `patchwise: Rank ${other} of ${size} was killed or has crashed, so all ranks end; checkpoints that were written are whole, and --resume continues from the last one.\n`,
    );
  }
  tellOthers(LOST);
  end();
}

/** Follows a connection: who is there if that is not known, and how it ends. */
function follow(socket: Socket, other?: number): void {
  let said = "";
  connections.add(socket);
  socket.on("data", (data) => {
    said += data.toString();
    if (said.endsWith(LOST)) end();
  });
  // An error is followed by the end.
  socket.on("error", () => {});
  socket.on("close", () => {
    connections.delete(socket);
    if (!said.endsWith(LEAVING) && !said.endsWith(LOST)) lost(other ?? Number(said));
  });
}

port.on("message", () => tellOthers(LEAVING));
if (rank === first) {
  createServer((socket) => follow(socket)).listen(path, () => port.postMessage("ready"));
} else {
  const socket = connect(path, () => {
    socket.write(String(rank));
    port.postMessage("ready");
  });
  follow(socket, first);
}
