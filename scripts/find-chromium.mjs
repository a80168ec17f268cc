/**
 * Finds the Chromium for browser tests: node scripts/find-chromium.mjs prints its path.
 * Imports only Node's own modules, because it runs before node_modules exists.
 */
import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const commands = [
  "chromium",
  "chromium-browser",
  "google-chrome-stable",
  "google-chrome",
  "chrome",
  "microsoft-edge",
];

const places = [
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe",
  "C:\\Program Files (x86)\\Microsoft\\Edge\\Application\\msedge.exe",
];

/**
 * Finds a Chromium executable: PATCHWISE_CHROMIUM, else the first usual name on PATH, else a usual location.
 *
 * @returns {string | undefined} undefined if there is none
 * @throws if PATCHWISE_CHROMIUM is not an executable
 */
export function findChromium() {
  const named = process.env["PATCHWISE_CHROMIUM"];
  if (named) {
    if (isExecutable(named)) return named;
    throw new Error(
      `PATCHWISE_CHROMIUM is "${named}", which is not an executable file; correct or unset it.`,
    );
  }
  return [...commands.flatMap(onPath), ...places].find(isExecutable);
}

/**
 * Like `findChromium`, but installs Debian's package if there is none and this process has the permission.
 *
 * @returns {string}
 * @throws if there is none and none could be installed
 */
export function ensureChromium() {
  const found = findChromium();
  if (found) return found;
  installPackages("Chromium", ["chromium"]);
  const installed = findChromium();
  if (installed) return installed;
  throw new Error(
    "The browser tests found no Chromium: install Chromium or Chrome, or set PATCHWISE_CHROMIUM to the path of one.",
  );
}

/**
 * Installs Debian's packages, if this process has the permission.
 *
 * @param {string} what
 * @param {readonly string[]} packages
 */
export function installPackages(what, packages) {
  if (process.getuid?.() !== 0 || !onPath("apt-get").some(isExecutable)) return;
  console.error(`Installing ${what} (apt-get install ${packages.join(" ")}) …`);
  spawnSync(`apt-get update && apt-get install -y ${packages.join(" ")}`, {
    shell: true,
    stdio: ["ignore", process.stderr, process.stderr],
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
  });
}

/** @param {string} command */
export function isOnPath(command) {
  return onPath(command).some(isExecutable);
}

/** @param {string} command */
function onPath(command) {
  const folders = (process.env["PATH"] ?? "").split(path.delimiter).filter(Boolean);
  return folders.map((folder) => path.join(folder, command));
}

/** @param {string} file */
function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  try {
    console.log(ensureChromium());
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
