import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";

const root = path.resolve(import.meta.dirname, "../..");
const pages = [
  "README.md",
  "ARCHITECTURE.md",
  "CONTRIBUTING.md",
  ...readdirSync(path.join(root, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];

/** What the code of the guides takes as given. */
const given: Readonly<Record<string, string>> = {
  backend: `import("patchwise/engine").Backend`,
  bytes: "Uint8Array",
  config: `import("patchwise/models").NetworkConfig`,
  context: "CanvasRenderingContext2D",
  graph: `import("patchwise/engine").Graph`,
  mixer: `import("patchwise/models").NetworkFamily<any>["trace"]`,
  onProgress: "(progress: { step: number; steps: number }) => void",
  picture: `import("patchwise/pictures").Picture`,
  pictures: `import("patchwise/training").LabelledPicture[]`,
  schema: `import("zod").ZodObject`,
  show: "(picture: unknown) => void",
  signal: "AbortSignal",
  weights: `import("patchwise/engine").WeightSource`,
};

// Inside the repository, so that the package finds itself by its name.
const folder = mkdtempSync(path.join(root, "test/.guides-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the guides", () => {
  it("hold TypeScript that compiles against the built package", { timeout: 300_000 }, () => {
    const blocks = pages.flatMap((page) => {
      const text = readFileSync(path.join(root, page), "utf8");
      return [...text.matchAll(/^```ts\n([\s\S]*?)^```/gm)].map((match) => match[1]!);
    });
    expect(blocks.length).toBeGreaterThan(5);
    for (const [i, block] of blocks.entries()) {
      const declared = (name: string) =>
        new RegExp(`(?:const|let|function) (?:\\{[^}]*|\\[[^\\]]*)?\\b${name}\\b`).test(block) ||
        new RegExp(`import \\{[^}]*\\b${name}\\b`).test(block);
      const prelude = Object.entries(given)
        .filter(([name]) => !declared(name))
        .map(([name, type]) => `declare const ${name}: ${type};\n`);
      writeFileSync(
        path.join(folder, `block-${i}.ts`),
        `${prelude.join("")}${block}\nexport {};\n`,
      );
    }
    writeFileSync(
      path.join(folder, "tsconfig.json"),
      JSON.stringify({
        extends: "../../tsconfig.json",
        compilerOptions: { noUnusedLocals: false, verbatimModuleSyntax: false },
        include: ["*.ts"],
        exclude: [],
      }),
    );
    const tsc = path.join(root, "node_modules/typescript/bin/tsc");
    const { stdout } = spawnSync(process.execPath, [tsc, "-p", folder], { encoding: "utf8" });
    expect(stdout).toBe("");
  });

  it.each(pages)("%s links to files that exist", (page) => {
    const text = readFileSync(path.join(root, page), "utf8").replaceAll(/^```[\s\S]*?^```/gm, "");
    const targets = [...text.matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)].map((match) => match[1]!);
    const missing = targets.filter(
      (target) =>
        !/^[a-z]+:/.test(target) && !existsSync(path.join(root, path.dirname(page), target)),
    );
    expect(missing).toEqual([]);
  });
});
