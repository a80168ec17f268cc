/** The page of README.md, made in an empty folder with nothing but what README.md says. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { servedPage } from "./page.mjs";

const readme = readFileSync(path.resolve(import.meta.dirname, "../../README.md"), "utf8");

/** The lines below which a page with previews, progress and cancel stays. */
const MOST_LINES = 40;

/**
 * Writes the page's files into a folder.
 *
 * @param {string} folder
 * @returns {number} their lines
 */
export function writeReadmePage(folder) {
  const files = { "index.html": block("<!-- index.html -->"), "main.js": block("// main.js") };
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(folder, name), text);
  const lines = Object.values(files).reduce((sum, text) => sum + text.split("\n").length - 1, 0);
  if (lines < MOST_LINES) return lines;
  throw new Error(`the page of README.md has ${lines} lines, not fewer than ${MOST_LINES}`);
}

/** @param {import("./rows.mjs").Installed} app */
export async function readmePage({ folder, expected, run }) {
  const lines = writeReadmePage(folder);
  const copy = readme.split("\n").find((line) => line.startsWith("mkdir -p public/models"));
  if (copy === undefined) throw new Error("README.md does not say how the model is copied");
  execFileSync("bash", ["-c", copy], { cwd: folder });
  run("npx", ["vite", "build"], folder);
  return `${lines} lines; ${await servedPage(path.join(folder, "dist"), expected)}`;
}

/**
 * @param {string} first the first line of a block of code
 * @returns {string} the lines behind it
 */
function block(first) {
  const start = readme.indexOf(`\n${first}\n`) + first.length + 2;
  const text = readme.slice(start, readme.indexOf("```", start));
  if (start > first.length + 1) return text;
  throw new Error(`README.md has no block that begins with ${first}`);
}
