/** Where a queue is: the addresses of one or more NATS servers, and who asks. */
import { quote, UsageError } from "../engine/errors.ts";

/** The parts of `nats://USER:PASSWORD@HOST:PORT,…`, as the client of NATS takes them. */
export interface QueueAddress {
  /** HOST:PORT of each server. */
  readonly servers: readonly string[];
  readonly user?: string;
  readonly pass?: string;
  readonly token?: string;
  /** Encrypted, as `tls://` asks for. */
  readonly encrypted: boolean;
  /** The address without its password or token, for messages. */
  readonly shown: string;
}

const schemes = ["nats:", "tls:"];

/**
 * Reads the address of a queue: `nats://HOST:PORT`, `nats://USER:PASSWORD@HOST:PORT`, `nats://TOKEN@HOST:PORT`, the same with
 * `tls://`, or several with commas between them, of one cluster. The port is 4222 unless given.
 *
 * @param name of the option, for messages
 * @throws UsageError for anything else
 */
export function queueAddress(text: string, name = "--queue"): QueueAddress {
  const urls = text.split(",").map((part) => {
    const url = URL.canParse(part.trim()) ? new URL(part.trim()) : undefined;
    const known = url && schemes.includes(url.protocol) && url.hostname !== "";
    if (known && /^\/?$/.test(url.pathname) && url.search === "" && url.hash === "") return url;
    throw new UsageError(
      `${name} is ${quote(withoutSecrets(text))}, which is not the address of a NATS server; give one such as nats://127.0.0.1:4222.`,
    );
  });
  const [first] = urls as [URL, ...URL[]];
  const { username, password } = first;
  const [user, pass] = [username, password].map(decodeURIComponent) as [string, string];
  const servers = urls.map(({ hostname, port }) => `${hostname}:${port || "4222"}`);
  return {
    servers,
    ...(user !== "" && (pass === "" ? { token: user } : { user, pass })),
    encrypted: first.protocol === "tls:",
    shown: servers.map((server) => `${first.protocol}//${server}`).join(","),
  };
}

/** Messages and logs are read by others than those who may use the queue. */
function withoutSecrets(text: string): string {
  return text.replace(/[^/,@]*@/g, "…@");
}
