/**
 * Writes the API pages into docs/api: npm run docs
 *
 * Each public entry point of package.json becomes a module. The guides in docs/ are included beside them.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const typedoc = path.join(root, "scripts/typedoc");

/** @param {string} command @param {string[]} args @param {string} cwd */
function run(command, args, cwd) {
  const { status } = spawnSync(command, args, { cwd, stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

const { exports } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
const entries = Object.values(exports)
  .flatMap((entry) => (typeof entry === "object" ? [entry.types] : []))
  .map((file) => file.replace("./dist/", "src/").replace(/\.d\.ts$/, ".ts"));

run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], typedoc);
run(
  process.execPath,
  [
    path.join(typedoc, "node_modules/typedoc/bin/typedoc"),
    ...entries.flatMap((file) => ["--entryPoints", file]),
    ...["bash", "html", "javascript", "json", "python", "typescript", "yaml"].flatMap(
      (language) => ["--highlightLanguages", language],
    ),
    "--tsconfig",
    "tsconfig.build.json",
    "--out",
    "docs/api",
    "--name",
    "Patchwise",
    "--readme",
    "README.md",
    "--projectDocuments",
    "docs/*.md",
    "--excludeInternal",
    "--disableGit",
    "--disableSources",
    "--validation.notExported",
    "false",
    "--treatWarningsAsErrors",
  ],
  root,
);
