/**
 * Runs a TypeScript file of this repository: node scripts/run.mjs bench/main.ts ARGS
 *
 * Nothing is bundled, so `import.meta.url` and source positions stay true, and worker threads may be `.ts` files too.
 */
import { spawn } from "node:child_process";
import path from "node:path";
import { isatty } from "node:tty";

const [entry, ...args] = process.argv.slice(2);
if (!entry) {
  console.error("scripts/run.mjs needs a file: node scripts/run.mjs FILE.ts ARGS");
  process.exit(2);
}

// From 22.18 on, Node strips types by itself.
const hooks = new URL("./typescript-hooks.mjs", import.meta.url).href;
const register = `data:text/javascript,import{register}from"node:module";register(${JSON.stringify(hooks)})`;
const native = "typescript" in process.features && process.features.typescript;
const loader = native ? [] : ["--import", register];

const child = spawn(
  process.execPath,
  ["--enable-source-maps", ...loader, path.resolve(entry), ...args],
  { stdio: "inherit" },
);
// A signal to this process does not reach the child, but Ctrl-C in a terminal does, and a second signal would end it at once.
const atTerminal = [0, 1, 2].some((file) => isatty(file));
process.on("SIGINT", () => atTerminal || child.kill("SIGINT"));
process.on("SIGTERM", () => child.kill("SIGTERM"));
process.on("SIGHUP", () => child.kill("SIGHUP"));
child.on("exit", (code, signal) => {
  process.exitCode = signal ? 1 : (code ?? 1);
});
