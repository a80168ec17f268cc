/** Finds the NATS server that the tests start. Imports only Node's own modules, because it runs before node_modules exists. */
import { existsSync } from "node:fs";
import { installPackages, isOnPath } from "./find-chromium.mjs";

/** Debian keeps it in a folder of the administrator's commands, which not every PATH names. */
const debian = "/usr/sbin/nats-server";

/**
 * The command that starts the server, or undefined if it is not installed.
 *
 * @returns {string | undefined}
 */
export function findNats() {
  if (isOnPath("nats-server")) return "nats-server";
  return existsSync(debian) ? debian : undefined;
}

/** Like `findNats`, but installs Debian's package if it is missing, and says so where that cannot be done. */
export function ensureNats() {
  if (findNats() === undefined) installPackages("a NATS server", ["nats-server"]);
  if (findNats() === undefined)
    console.error(
      "Tests of drawing and serving on a queue are left out: nats-server is not installed.",
    );
}
