/** What is packed for npm, and what its users meet first. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, it, vi } from "vitest";
import { webBackend } from "../../src/engine/index-web.ts";

vi.setConfig({ testTimeout: 60_000 });

const root = path.resolve(import.meta.dirname, "../..");
const readme = readFileSync(path.join(root, "README.md"), "utf8");

it("holds every file that README links to, the bundle for pages, and no source maps", () => {
  const args = ["pack", "--dry-run", "--json", "--ignore-scripts"];
  const [packed] = JSON.parse(execFileSync("npm", args, { cwd: root, encoding: "utf8" })) as {
    files: { path: string }[];
  }[];
  const files = packed!.files.map((file) => file.path);
  const links = [...readme.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, link]) => link!);
  expect(links.length).toBeGreaterThan(20);
  const missing = links.filter(
    (link) =>
      !files.some((file) => file === link || file.startsWith(`${link.replace(/\/$/, "")}/`)),
  );
  expect(missing).toEqual([]);
  for (const file of ["patchwise.js", "patchwise-worker.js", "ort-worker-wasm.js"]) {
    expect(files).toContain(`dist/web/${file}`);
  }
  expect(files.filter((file) => file.endsWith(".map"))).toEqual([]);
});

it("is installed without CUDA's libraries by a line on README's first screen", () => {
  const first = readme.split("\n").slice(0, 30).join("\n");
  expect(first).toContain("ONNXRUNTIME_NODE_INSTALL=skip npm install patchwise");
});

it("makes backends of pages on a server that renders them", () => {
  expect(webBackend({ device: "wasm", wasmPaths: "/ort/" }).device).toBe("wasm");
});

it("leaves nothing open that the collector of a pipeline without dispose() would close", () => {
  const program = `
    import { openPipeline } from "./dist/pipelines/index-node.js";
    import { setTimeout } from "node:timers/promises";
    const open = async () => void (await openPipeline("emoji"));
    await open();
    for (let i = 0; i < 5; i++) { gc(); await setTimeout(20); }
    console.log("collected");
  `;
  // Node 20 to 24 warn where 25 ends the process.
  const args = ["--expose-gc", "--throw-deprecation", "--input-type=module", "--eval", program];
  expect(execFileSync("node", args, { cwd: root, encoding: "utf8" })).toBe("collected\n");
});
