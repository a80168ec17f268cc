/** Uses servers that draw pictures. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { apartFrom } from "./pixels.mjs";
import { usedPage } from "./page.mjs";

/** The time within which a server must answer a ping while it draws, at the 99th percentile, in ms. */
const LONGEST_PING = 50;

const query = "?prompt=a+red+heart&seed=7";

/**
 * Runs a server while it is used.
 *
 * @param {readonly string[]} args
 * @param {string} cwd
 * @param {NodeJS.ProcessEnv} env
 * @param {(address: string) => Promise<string>} use
 */
async function serving(args, cwd, env, use) {
  const server = spawn(process.execPath, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(server, "exit");
  try {
    for await (const line of createInterface(server.stdout)) {
      const address = /http:\/\/127\.0\.0\.1:\d+/.exec(line)?.[0];
      if (address === undefined) continue;
      server.stdout.resume();
      return await use(address);
    }
    throw new Error(`the server ended before it listened: ${args.join(" ")}`);
  } finally {
    server.kill();
    await exited;
  }
}

/** @param {string} address */
async function fetched(address) {
  const response = await fetch(address);
  const body = Buffer.from(await response.arrayBuffer());
  if (response.ok) return body;
  throw new Error(`${address}: ${response.status} ${body.toString()}`);
}

/**
 * A server of Node's own modules, which answers pings while it draws.
 *
 * @param {readonly string[]} flags of Node
 */
export function nodeServer(...flags) {
  /** @param {import("./rows.mjs").Installed} app */
  return ({ folder, expected }) =>
    serving([...flags, "server.js"], folder, { PORT: "0" }, async (address) => {
      const pixels = await apartFrom(expected, await fetched(`${address}/${query}`));
      const drawing = new AbortController();
      const drawn = Promise.all(
        Array.from({ length: 20 }, (_, i) => fetched(`${address}/?prompt=cat&seed=${i}`)),
      ).finally(() => drawing.abort());
      /** @type {number[]} */
      const pings = [];
      while (!drawing.signal.aborted) {
        const start = performance.now();
        await fetched(`${address}/ping`);
        pings.push(performance.now() - start);
      }
      await drawn;
      const longest = pings.toSorted((a, b) => a - b)[Math.floor(0.99 * pings.length)] ?? NaN;
      const said = `${longest.toFixed(1)} ms for a ping (99th percentile of ${pings.length} while 20 pictures are drawn)`;
      if (!(longest <= LONGEST_PING)) throw new Error(said);
      return `${pixels}; ${said}`;
    });
}

/**
 * Next.js: a route handler that draws, and a page that does.
 *
 * @param {{ readonly standalone?: boolean; readonly bundler?: string }} options
 */
export function nextServer({ standalone = false, bundler }) {
  /** @param {import("./rows.mjs").Installed} app */
  return async ({ folder, expected, run }) => {
    const flags = bundler === undefined ? [] : ["--", bundler];
    const env = { NEXT_TELEMETRY_DISABLED: "1", ...(standalone && { STANDALONE: "1" }) };
    run("npm", ["run", "build", ...flags], folder, env);
    const port = String(20_000 + Math.floor(20_000 * Math.random()));
    const next = path.join(folder, "node_modules/next/dist/bin/next");
    /** @type {[args: readonly string[], cwd: string]} */
    let command = [[next, "start", "-H", "127.0.0.1", "-p", port], folder];
    if (standalone) {
      // As Next.js documents it: the public files and static ones are copied by hand. What was not traced is out of reach.
      const moved = `${folder}-moved`;
      renameSync(path.join(folder, ".next/standalone"), moved);
      cpSync(path.join(folder, ".next/static"), path.join(moved, ".next/static"), {
        recursive: true,
      });
      cpSync(path.join(folder, "public"), path.join(moved, "public"), { recursive: true });
      command = [["server.js"], moved];
    }
    return serving(...command, { PORT: port, HOSTNAME: "127.0.0.1" }, async (address) => {
      const pixels = await apartFrom(expected, await fetched(`${address}/draw${query}`));
      return `route ${pixels}; page ${await usedPage(`${address}/`, expected)}`;
    });
  };
}

/**
 * The development server of Vite, which serves modules and workers one by one, as they stand.
 *
 * @param {string} [config] the content of vite.config.js
 */
export function viteServer(config) {
  /** @param {import("./rows.mjs").Installed} app */
  return ({ folder, expected, run }) => {
    run("npm", ["run", "model"], folder);
    if (config !== undefined) writeFileSync(path.join(folder, "vite.config.js"), config);
    const vite = path.join(folder, "node_modules/vite/bin/vite.js");
    return serving([vite, "--host", "127.0.0.1"], folder, { NO_COLOR: "1" }, (address) =>
      usedPage(`${address}/`, expected),
    );
  };
}
