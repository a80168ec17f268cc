/**
 * Prepares a fresh checkout: node scripts/setup.mjs [--browser] [--mpi] [--nats]
 *
 * Installs the locked dependencies if they are missing or outdated, with --browser finds or installs Chromium, with --mpi Open MPI
 * and MPICH, and with --nats a NATS server.
 * It runs before node_modules exists, so it imports only Node's own modules. It prints to stderr, and nothing if
 * everything is installed.
 */
import { execSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { ensureChromium } from "./find-chromium.mjs";
import { ensureMpi } from "./find-mpi.mjs";
import { ensureNats } from "./find-nats.mjs";

/** @typedef {{ version?: string; optional?: boolean }} LockedPackage */

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

try {
  requireNode();
  if (!dependenciesInstalled()) {
    console.error("Installing dependencies (npm ci) …");
    execSync("npm ci --include=dev", { stdio: ["ignore", process.stderr, process.stderr] });
  }
  if (process.argv.includes("--browser")) ensureChromium();
  if (process.argv.includes("--mpi")) ensureMpi();
  if (process.argv.includes("--nats")) ensureNats();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

function requireNode() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new Error(`Node ${process.versions.node} is too old: install Node 20.19 or later.`);
  }
}

/** Compares versions and not file times, which a checkout changes. */
function dependenciesInstalled() {
  const installedLock = "node_modules/.package-lock.json";
  if (!existsSync(installedLock)) return false;
  const installed = lockedPackages(installedLock);
  return Object.entries(lockedPackages("package-lock.json")).every(([path, wanted]) => {
    if (path === "") return true;
    const present = installed[path];
    // Optional packages for other platforms are not installed.
    return present ? present.version === wanted.version : wanted.optional === true;
  });
}

/**
 * @param {string} path
 * @returns {Record<string, LockedPackage>}
 */
function lockedPackages(path) {
  return JSON.parse(readFileSync(path, "utf8")).packages;
}
