/** Native libraries write to the terminal what their caller is told anyway. */
import { spawn, spawnSync } from "node:child_process";
import path from "node:path";
import { expect, it } from "vitest";
import { isNoisy } from "../../src/cli/quiet-process.ts";
import { patchwise } from "../support/cli.ts";

const root = path.resolve(import.meta.dirname, "../..");
const hooks = path.join(root, "scripts/typescript-hooks.mjs");
const register = `data:text/javascript,import{register}from"node:module";register(${JSON.stringify(`file://${hooks}`)})`;
const entry = ["--import", register, path.join(root, "test/support/quiet-entry.ts")];

/** Runs the entry without another process in between, which would show its exit and signals differently. */
const quiet = (end: string) =>
  spawnSync(process.execPath, [...entry, end], { encoding: "utf8", timeout: 20_000 });

function started(end: string) {
  const child = spawn(process.execPath, [...entry, end], { stdio: ["ignore", "ignore", "pipe"] });
  let err = "";
  const ready = new Promise<void>((resolve) => {
    child.stderr.on("data", (data: Buffer) => {
      err += data.toString();
      if (err.includes("ready\n")) resolve();
    });
  });
  const ended = new Promise<{ code: number | null; signal: string | null; err: string }>(
    (resolve) => child.once("close", (code, signal) => resolve({ code, signal, err })),
  );
  return { child, ready, ended };
}

it.each(["cuda", "webgpu"])(
  "shows nothing of its own of a device that is not there: %s",
  (name) => {
    const { err } = patchwise(["generate", "red heart", "--steps", "1", "--device", name], "/tmp");
    expect(err).not.toMatch(/onnxruntime:|\[[EW]:|\u001b|XDG|Vulkan [^M]*required|dawn/);
    expect(err).toMatch(/^emoji: opening\n/);
    expect(err).toMatch(/\n(patchwise: The device|Drawn in) [^\n]+\n$/);
  },
);

it("knows the devices whose libraries write", () => {
  expect(isNoisy(["generate", "a", "--device", "webgpu"])).toBe(process.platform !== "win32");
  expect(isNoisy(["train", "a", "--device", "webgpu:0"])).toBe(process.platform !== "win32");
  expect(isNoisy(["generate", "a", "--device=webgpu"])).toBe(process.platform !== "win32");
  expect(isNoisy(["generate", "webgpu", "--device", "cuda"])).toBe(false);
  expect(isNoisy(["generate", "--device", "webgpu", "--device", "cpu"])).toBe(false);
});

it("shows what a command writes, and its exit code", () => {
  const { status, stdout, stderr } = quiet("well");
  expect([status, stdout, stderr]).toEqual([1, "answer\n", "undefined false\n"]);
});

it("shows an exception once, and the noise before a crash", () => {
  const thrown = quiet("thrown");
  expect(thrown.status).toBe(1);
  expect(thrown.stderr).toMatch(/^Error: a bug\n/);
  expect(thrown.stderr).not.toMatch(/noise|Node\.js/);

  const aborted = quiet("aborted");
  expect(aborted.signal).toBe("SIGABRT");
  expect(aborted.stderr).toMatch(/^native noise\n/);
});

it("passes a signal on once, and ends by the one that ended the command", async () => {
  const stopped = started("signalled");
  await stopped.ready;
  stopped.child.kill("SIGINT");
  expect(await stopped.ended).toMatchObject({
    code: 130,
    err: expect.stringMatching(/stopped by 1\n$/),
  });

  const ended = started("killed");
  await ended.ready;
  ended.child.kill("SIGTERM");
  expect(await ended.ended).toMatchObject({
    signal: "SIGTERM",
    err: expect.not.stringMatching(/noise/),
  });
});

it("does not outlive the process that was started", async () => {
  const { child, ready, ended } = started("killed");
  await ready;
  child.kill("SIGKILL");
  const begun = performance.now();
  // The stream closes with its last copy, which the command has.
  expect((await ended).signal).toBe("SIGKILL");
  expect(performance.now() - begun).toBeLessThan(10_000);
});
