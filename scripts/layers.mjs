/**
 * A lint rule that enforces the architecture: which files of src/ may import which.
 * oxlint loads this file as a plugin (see .oxlintrc.json).
 */
import { isBuiltin } from "node:module";
import path from "node:path";

/** The folders of src/ from the top layer down. Imports point only downwards in this list. */
const layers = [
  "cli",
  "bulk",
  "server",
  "index.ts",
  "web",
  "comparison",
  "verify",
  "pipelines",
  "training",
  "evaluation",
  "data",
  "pictures",
  "models",
  "diffusion",
  "text",
  "weights",
  "nn",
  "queue",
  "engine",
];

const nodeOnlyFolders = new Set(["cli", "bulk", "server"]);

/**
 * Returns the reason why `file` may not import `specifier`, or undefined if it may.
 *
 * @param {string} file path of the importing file from the root of the repository, with "/"
 * @param {string} specifier the module specifier of the import
 * @returns {string | undefined}
 */
export function importProblem(file, specifier) {
  const [top, folder = "", ...rest] = file.split("/");
  if (top !== "src") return undefined;

  const onlyInNode = isBuiltin(specifier) || specifier.endsWith("-node.ts");
  if (onlyInNode && !nodeOnlyFolders.has(folder) && !file.endsWith("-node.ts")) {
    return `"${specifier}" exists only in Node: move what needs it to src/cli, src/bulk, src/server or a file named *-node.ts`;
  }
  if (specifier.startsWith("onnxruntime-") && !/^src\/engine\/runtime\/ort-[^/]+\.ts$/.test(file)) {
    return `"${specifier}" is imported only in src/engine/runtime/ort-*.ts: use the Backend interface`;
  }
  if (specifier === "patchwise" || specifier.startsWith("patchwise/")) {
    return `"${specifier}" is this package: import the file by its relative path`;
  }
  if (!specifier.startsWith(".")) return undefined;

  const target = path.posix.join(path.posix.dirname(file), specifier);
  const [targetTop, targetFolder = "", ...targetRest] = target.split("/");
  if (targetTop !== "src") return `"${specifier}" leaves src/: the library stands on its own`;

  for (const name of [folder, targetFolder]) {
    if (!layers.includes(name)) return `src/${name} is not listed in scripts/layers.mjs`;
  }
  if (layers.indexOf(targetFolder) < layers.indexOf(folder)) {
    return `src/${folder} may not import src/${targetFolder}: imports point only downwards (${layers.join(" > ")})`;
  }
  if (folder === "models" && targetFolder === "models") return modelProblem(rest, targetRest);
  return undefined;
}

/**
 * Models share only nn/: each has its own folder and imports no other model. The files directly in src/models list them all.
 *
 * @param {readonly string[]} from path below src/models/
 * @param {readonly string[]} to path below src/models/
 */
function modelProblem(from, to) {
  const [model, other] = [from, to].map((parts) => (parts.length > 1 ? parts[0] : undefined));
  if (model === undefined || other === undefined || model === other) return undefined;
  return `model ${model} may not import model ${other}: what two models share belongs in src/nn`;
}

/** @typedef {{ type: string; value?: unknown } | null | undefined} Literal */

export default {
  meta: { name: "patchwise" },
  rules: {
    layers: {
      /** @param {{ filename: string; cwd: string; report(problem: object): void }} context */
      create(context) {
        const file = path.relative(context.cwd, context.filename).replaceAll("\\", "/");
        /** @param {{ source?: Literal }} node */
        const check = (node) => {
          const specifier = node.source?.value;
          const message =
            typeof specifier === "string" ? importProblem(file, specifier) : undefined;
          if (message) context.report({ node: node.source, message });
        };
        return {
          ImportDeclaration: check,
          ExportNamedDeclaration: check,
          ExportAllDeclaration: check,
          ImportExpression: check,
        };
      },
    },
  },
};
