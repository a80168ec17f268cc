/**
 * Tries the packed package in fresh applications, as a user would: npm run test:apps, or npm run test:apps -- next bun
 *
 * Each folder of examples/apps is copied, installed with the packed tarball, built and used as it stands, and must draw the same pixels as
 * the command line, to within 1 of 255. Arguments select the rows whose names contain one of them. It takes some minutes and needs the npm
 * registry, so it is not part of `npm test`.
 */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { installed } from "./apps/managers.mjs";
import { rows } from "./apps/rows.mjs";

const root = path.resolve(import.meta.dirname, "..");
const wanted = process.argv.slice(2);
const selected = rows.filter(
  ({ name }) => wanted.length === 0 || wanted.some((part) => name.includes(part)),
);
if (selected.length === 0) {
  const names = rows.map(({ name }) => name);
  console.error(`No row is called ${wanted.join(", ")}; they are ${names.join(", ")}.`);
  process.exit(2);
}

/** Runs a command to its end; errors hold what it said. */
const run = (
  /** @type {string} */ command,
  /** @type {readonly string[]} */ args,
  /** @type {string} */ cwd,
  env = {},
) => {
  try {
    return execFileSync(command, args, {
      cwd,
      encoding: "utf8",
      maxBuffer: 2 ** 26,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: "skip", ...env },
    });
  } catch (error) {
    const { stdout, stderr } = /** @type {{ stdout: string; stderr: string }} */ (error);
    throw new Error(`${command} ${args.join(" ")}: ${(stderr + stdout).slice(-3000)}`, {
      cause: error,
    });
  }
};

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-apps-"));
try {
  const packed = run("npm", ["pack", "--silent", "--pack-destination", scratch], root).trim();
  const tarball = path.join(scratch, packed.split("\n").at(-1) ?? "");
  const drawn = path.join(scratch, "expected.png");
  run("node", ["dist/cli/main.js", "generate", "a red heart", "--seed", "7", "--out", drawn], root);
  const expected = await sharp(drawn).removeAlpha().raw().toBuffer();

  let failed = 0;
  for (const { name, app, packages = [], manager = "npm", use } of selected) {
    const folder = path.join(scratch, name.replaceAll(/\W/g, "-"));
    try {
      mkdirSync(folder);
      if (app) cpSync(path.join(root, "examples/apps", app), folder, { recursive: true });
      else run("npm", ["init", "-y"], folder);
      installed[manager]({
        folder,
        tarball,
        packages,
        tools: path.join(scratch, "tools", manager),
        run,
      });
      console.log(`passed: ${name}: ${await use({ folder, expected, run })}`);
    } catch (error) {
      failed++;
      console.log(`failed: ${name}: ${error instanceof Error ? error.stack : String(error)}`);
    }
    rmSync(folder, { recursive: true, force: true });
  }
  console.log(`${selected.length - failed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
} finally {
  rmSync(scratch, { recursive: true });
}
