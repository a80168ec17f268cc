/** Processes whose parent is killed while they speak to it. */
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { expect, it } from "vitest";
import { typescript } from "../../support/typescript.ts";

const module = pathToFileURL(
  path.resolve(import.meta.dirname, "../../../src/engine/runtime/parent-node.ts"),
).href;

it("a process whose parent is killed while it speaks ends without a word", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "patchwise-parent-"));
  const child = path.join(folder, "child.mjs");
  const parent = path.join(folder, "parent.mjs");
  // Its event loop is blocked while the other end closes, as by a run of a network, so that it speaks before it hears of that.
  await writeFile(
    child,
    `import { tellParent } from ${JSON.stringify(module)};
     process.once("disconnect", () => process.exit());
     tellParent({});
     setTimeout(() => {
       Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
       tellParent({ bytes: new Uint8Array(100_000) });
     }, 1);`,
  );
  await writeFile(
    parent,
    `import { fork } from "node:child_process";
     fork(${JSON.stringify(child)}, { serialization: "advanced" }).on("message", () => process.kill(process.pid, "SIGKILL"));`,
  );
  const killed = spawn(process.execPath, [...typescript, parent], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  killed.stderr.on("data", (bytes: Buffer) => (said += bytes.toString()));
  // The child holds the pipe too, so it closes when both have ended.
  await new Promise((resolve) => killed.stderr.once("close", resolve));
  expect(killed.signalCode).toBe("SIGKILL");
  expect(said).toBe("");
  await rm(folder, { recursive: true, force: true });
});
