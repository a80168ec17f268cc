import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { importProblem } from "../../scripts/layers.mjs";

describe("importProblem", () => {
  it.each([
    ["src/nn/linear.ts", "../engine/tensor.ts"],
    ["src/engine/onnx/lower.ts", "../graph/tensor.ts"],
    ["src/cli/verify.ts", "../engine/index.ts"],
    ["src/index.ts", "./models/dit.ts"],
    ["src/cli/main.ts", "node:fs"],
    ["src/server/jobs.ts", "node:worker_threads"],
    ["src/weights/files-node.ts", "node:fs/promises"],
    ["src/weights/index-node.ts", "./files-node.ts"],
    ["src/cli/verify.ts", "../weights/files-node.ts"],
    ["src/engine/runtime/ort-web.ts", "onnxruntime-web/webgpu"],
    ["src/engine/onnx/proto.ts", "@bufbuild/protobuf/wire"],
    ["src/models/dit/dit.ts", "../../nn/linear.ts"],
    ["src/models/dit/dit.ts", "./presets.ts"],
    ["src/models/index.ts", "./dit/dit.ts"],
    ["src/models/mmdit/mmdit.ts", "../family.ts"],
    ["test/engine/tensor.test.ts", "../../src/cli/main.ts"],
    ["bench/matmul.ts", "onnxruntime-node"],
  ])("lets %s import %s", (file, specifier) => {
    expect(importProblem(file, specifier)).toBeUndefined();
  });

  it.each([
    ["src/engine/tensor.ts", "../nn/linear.ts", "only downwards"],
    ["src/engine/onnx/lower.ts", "../../weights/safetensors.ts", "only downwards"],
    ["src/text/clip.ts", "../diffusion/levels.ts", "only downwards"],
    ["src/engine/tensor.ts", "../index.ts", "only downwards"],
    ["src/index.ts", "./cli/main.ts", "only downwards"],
    ["src/utils/misc.ts", "../engine/tensor.ts", "src/utils is not listed"],
    ["src/engine/tensor.ts", "../utils/misc.ts", "src/utils is not listed"],
    ["src/nn/linear.ts", "../../bench/main.ts", "leaves src/"],
    ["src/nn/linear.ts", "patchwise/engine", "relative path"],
    ["src/weights/files.ts", "node:fs", "only in Node"],
    ["src/weights/files.ts", "fs/promises", "only in Node"],
    ["src/weights/index.ts", "./files-node.ts", "only in Node"],
    ["src/engine/onnx/lower.ts", "onnxruntime-common", "Backend interface"],
    ["src/cli/main.ts", "onnxruntime-node", "Backend interface"],
    ["src/models/mmdit/blocks.ts", "../dit/blocks.ts", "model mmdit may not import model dit"],
  ])("stops %s from importing %s", (file, specifier, reason) => {
    expect(importProblem(file, specifier)).toContain(reason);
  });
});

describe("the linter", () => {
  const root = path.resolve(import.meta.dirname, "../..");
  let project: string;

  beforeAll(() => {
    project = mkdtempSync(path.join(tmpdir(), "patchwise-layers-"));
    // Where the linter looks for the program behind its rules that need types.
    symlinkSync(path.join(root, "node_modules"), path.join(project, "node_modules"), "junction");
  });
  afterAll(() => {
    rmSync(project, { recursive: true, force: true });
  });

  /** The rules that fire, in order, when these files are linted under this repository's own configuration. */
  function lint(files: Record<string, string>): string[] {
    for (const [name, source] of Object.entries(files)) {
      const file = path.join(project, name);
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(file, source);
    }
    const oxlint = path.join(root, "node_modules/oxlint/bin/oxlint");
    const config = path.join(root, ".oxlintrc.json");
    const args = [oxlint, "--config", config, "--format", "json", ...Object.keys(files)];
    const run = spawnSync(process.execPath, args, { cwd: project, encoding: "utf8" });
    const report: { diagnostics: { code: string }[] } = JSON.parse(run.stdout);
    return report.diagnostics.map((diagnostic) => diagnostic.code);
  }

  it.each([
    ["import", `import { x } from "../nn/x.ts";\nx();\n`],
    ["import type", `import type { X } from "../nn/x.ts";\nexport const x: X[] = [];\n`],
    ["export", `export { x } from "../nn/x.ts";\n`],
    ["export *", `export * from "../nn/x.ts";\n`],
    ["dynamic import", `export const x = () => import("../nn/x.ts");\n`],
  ])("reports the %s of a folder above", (_, source) => {
    expect(lint({ "src/engine/low.ts": source })).toEqual(["patchwise(layers)"]);
  });

  it("reports modules that load each other in a circle", () => {
    const codes = lint({
      "src/engine/a.ts": `import { b } from "./b.ts";\nexport const a = () => b;\n`,
      "src/engine/b.ts": `import { a } from "./a.ts";\nexport const b = () => a;\n`,
    });
    expect(codes).toEqual(["import(no-cycle)", "import(no-cycle)"]);
  });

  it("reports a promise that nobody waits for", () => {
    const source = `export function f(): void {\n  Promise.resolve(1);\n}\n`;
    expect(lint({ "src/engine/promise.ts": source })).toEqual(["typescript(no-floating-promises)"]);
  });

  it("reports a rule that is switched off", () => {
    const source = `// oxlint-disable-next-line eslint/no-var\nexport var x = 1;\n`;
    expect(lint({ "src/engine/off.ts": source })).toEqual(["eslint(no-warning-comments)"]);
  });

  it("finds nothing in a clean file", () => {
    expect(lint({ "src/engine/clean.ts": "export const one = 1;\n" })).toEqual([]);
  });
});
