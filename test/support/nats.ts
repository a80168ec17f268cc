/** A NATS server with JetStream on loopback, with a store of its own that outlives restarts. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { findNats } from "../../scripts/find-nats.mjs";

const command = findNats();

/** False where tests with a server have to be left out. */
export const hasNats = command !== undefined;

export interface NatsServer {
  readonly url: string;
  /** Ends the server; what it has stored stays. */
  stop(signal?: NodeJS.Signals): Promise<void>;
  /** Starts it again at the same address. */
  start(): Promise<void>;
  /** Ends it and removes what it has stored. */
  remove(): Promise<void>;
}

/** @param options further ones of the command, such as those of passwords */
export async function startNats(options: readonly string[] = ["--jetstream"]): Promise<NatsServer> {
  const store = mkdtempSync(path.join(tmpdir(), "patchwise-nats-"));
  const port = await freePort();
  let running: ChildProcess | undefined;
  const server: NatsServer = {
    url: `nats://127.0.0.1:${port}`,
    async start() {
      const place = ["--addr", "127.0.0.1", "--port", String(port), "--store_dir", store];
      running = spawn(command!, [...place, ...options], { stdio: "ignore" });
      while (!(await answers(port))) {
        if (running.exitCode !== null) throw new Error("The NATS server has ended.");
        await setTimeout(20);
      }
    },
    async stop(signal = "SIGTERM") {
      const ending = running;
      if (ending?.exitCode !== null || ending.signalCode !== null) return;
      const ended = new Promise((resolve) => ending.once("exit", resolve));
      ending.kill(signal);
      await ended;
    },
    async remove() {
      await server.stop("SIGKILL");
      rmSync(store, { recursive: true, force: true });
    },
  };
  await server.start();
  return server;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    // The server greets those that connect.
    socket.once("data", () => resolve(true)).once("data", () => socket.destroy());
    socket.once("error", () => resolve(false));
  });
}

/** A port of loopback that nobody listens on. */
export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolve(port));
    });
  });
}
