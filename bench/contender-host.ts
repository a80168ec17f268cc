/**
 * The child process around a contender written in TypeScript: `contender-host.ts MODULE WORK_DIR`.
 * The protocol is described in `contender.ts`.
 */
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { Absent, type Contender } from "./contender.ts";

// Libraries log to the console, but stdout is reserved for the protocol.
console.log = console.info = console.debug = console.error;

function reply(message: object): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

async function serve(modulePath: string, workDir: string): Promise<void> {
  const module = (await import(pathToFileURL(modulePath).href)) as { default: Contender };
  const contender = await module.default.setup(workDir);
  reply({ settings: contender.settings });
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === "step") reply(await contender.step());
  }
}

const [modulePath, workDir] = process.argv.slice(2);
if (modulePath === undefined || workDir === undefined) {
  throw new Error("The contender host needs two arguments: a module and a work folder.");
}
try {
  await serve(modulePath, workDir);
  process.exit(0);
} catch (error) {
  if (error instanceof Absent) {
    reply({ absent: error.message });
    process.exit(0);
  }
  const missing = /Cannot find (?:package|module) '([^']+)'/.exec(String(error))?.[1];
  if (missing === undefined) throw error;
  reply({ absent: `the package ${missing} is not installed` });
  process.exit(0);
}
