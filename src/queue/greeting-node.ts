/** Checks that a NATS server answers at an address. */
import { connect } from "node:net";

/**
 * Waits for what a NATS server says first to whoever connects. The client itself leaves its connection to a program that says nothing, or
 * something else, open, which then holds up the end of the process.
 *
 * @param servers each HOST:PORT
 * @param timeout milliseconds
 * @throws Error if none of them does
 */
export async function untilGreeted(servers: readonly string[], timeout: number): Promise<void> {
  try {
    await Promise.any(servers.map((server) => greeting(server, timeout)));
  } catch (error) {
    throw (error as AggregateError).errors[0];
  }
}

/** A server begins with this and its version, address and limits, also one that then goes on with TLS. */
const GREETING = "INFO ";

async function greeting(server: string, timeout: number): Promise<void> {
  const { hostname, port } = new URL(`nats://${server}`);
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ""), port: Number(port) });
  const failed = (message: string) => socket.destroy(new Error(message));
  const late = setTimeout(() => failed(`it does not answer within ${timeout / 1000} s`), timeout);
  try {
    await new Promise<void>((resolve, reject) => {
      let said = "";
      socket.setEncoding("latin1").on("data", (text: string) => {
        said += text;
        if (said.startsWith(GREETING)) resolve();
        else if (!GREETING.startsWith(said)) failed("what answers is no NATS server");
      });
      socket.on("end", () => failed("it closes the connection"));
      socket.on("error", (error: NodeJS.ErrnoException) =>
        reject(error.code === "ECONNREFUSED" ? new Error("connection refused") : error),
      );
    });
  } finally {
    clearTimeout(late);
    socket.destroy();
  }
}
