/**
 * The client of NATS (https://nats.io), whose packages are optional: they are loaded only where a queue is asked for.
 */
import type * as jetstream from "@nats-io/jetstream";
import type * as kv from "@nats-io/kv";
import type * as obj from "@nats-io/obj";
import type * as transport from "@nats-io/transport-node";
import { UsageError } from "../engine/errors.ts";

/** What `npm install` has to be given where they are missing. */
const packages = [
  "@nats-io/transport-node",
  "@nats-io/jetstream",
  "@nats-io/kv",
  "@nats-io/obj",
] as const;

/** The modules of the client. */
export interface NatsModules {
  readonly transport: typeof transport;
  readonly jetstream: typeof jetstream;
  readonly kv: typeof kv;
  readonly obj: typeof obj;
}

/**
 * Loads the client.
 *
 * @throws UsageError that says what to install
 */
export async function natsModules(): Promise<NatsModules> {
  try {
    const modules = await Promise.all([
      import("@nats-io/transport-node"),
      import("@nats-io/jetstream"),
      import("@nats-io/kv"),
      import("@nats-io/obj"),
    ]);
    return { transport: modules[0], jetstream: modules[1], kv: modules[2], obj: modules[3] };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw error;
    throw new UsageError(
      `A queue needs packages that are not installed: npm install ${packages.join(" ")}.`,
      { cause: error },
    );
  }
}
