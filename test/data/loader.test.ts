import { spawnSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { openLoader } from "../../src/data/loading/loader-node.ts";
import { typescript } from "../support/typescript.ts";
import { configOf, folderOf, messageOf, png, small } from "./support.ts";

/** A folder with two classes of pictures, each with its number as colour. */
async function pictures(count: number, bad: readonly number[] = []): Promise<string> {
  const files: Record<string, string | Uint8Array> = {};
  for (let i = 0; i < count; i++) {
    const name = `${i % 2 ? "odd" : "even"}/${String(i).padStart(3, "0")}.png`;
    files[name] = bad.includes(i) ? "damaged" : await png(i);
  }
  return folderOf(files);
}

async function loaderOf(path: string, options: object = {}, config: object = {}) {
  const data = configOf({ kind: "images", path, ...config });
  const loader = await openLoader({ data, shape: small, batch: 4, seed: 1, from: 0, ...options });
  onTestFinished(() => loader.close());
  return loader;
}

type Loader = Awaited<ReturnType<typeof loaderOf>>;

/** Pixels and labels of the next batches. */
async function take(loader: Loader, count: number) {
  const batches = [];
  for (let i = 0; i < count; i++) {
    const { index, pixels, labels } = await loader.next();
    batches.push({ index, pixels: [...pixels], labels: [...labels!] });
  }
  return batches;
}

describe("a loader", () => {
  it("returns batches with labels and describes the data set", async () => {
    const path = await pictures(10);
    const loader = await loaderOf(path);
    expect(loader.info).toEqual({
      name: path,
      count: 10,
      classes: ["even", "odd"],
      captioned: false,
    });
    // Ten pictures of 12 bytes, with as much as an object takes, and 17 batches of 4.
    expect(loader.memory).toBe(10 * (12 + 200) + 17 * 4 * 12);
    const batches = await take(loader, 5);
    expect(batches.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4]);
    const reds = batches.map(({ pixels }) => pixels.filter((_, i) => i % 12 === 0));
    expect(reds.flat().sort((a, b) => a - b)).toEqual(
      Array.from({ length: 20 }, (_, i) => Math.floor(i / 2)),
    );
    expect(batches.map(({ labels }) => labels)).toEqual(
      reds.map((batch) => batch.map((red) => red % 2)),
    );
  });

  it("returns the same batches from any start", async () => {
    const path = await pictures(9);
    const all = await take(await loaderOf(path), 30);
    expect(await take(await loaderOf(path, { from: 23 }), 7)).toEqual(all.slice(23));
    expect(await take(await loaderOf(path, { seed: 2 }), 30)).not.toEqual(all);
  });

  it("decodes ahead while this thread is blocked", async () => {
    const path = await pictures(4);
    const asleep = new Int32Array(new SharedArrayBuffer(4));
    let given = 0;
    // Longer each time, as a machine that does much else may need.
    for (let ms = 500; given < 16 && ms < 20_000; ms *= 2) {
      const loader = await loaderOf(path);
      Atomics.wait(asleep, 0, 0, ms);
      // One turn of the event loop brings in what has arrived; nothing is waited for.
      await sleep(0);
      given = 0;
      const turn = sleep(0);
      const taken = (async () => {
        for (; given < 16; given++) await loader.next();
      })();
      await turn;
      if (given < 16) await taken.then(() => (given = 0));
    }
    expect(given).toBe(16);
  });

  it("reports skipped pictures with their batches", async () => {
    const path = await pictures(40, [5, 20]);
    const loader = await loaderOf(path);
    expect(loader.skipped()).toEqual([]);
    await take(loader, 10);
    const names = loader.skipped().map(({ name }) => name);
    expect(names.sort()).toEqual([`${path}/even/020.png`, `${path}/odd/005.png`]);
    expect(loader.skipped()[0]!.reason).toContain("cannot be read as a picture");
  });

  it("rethrows errors of its thread after the batches before them", async () => {
    const bad = Array.from({ length: 30 }, (_, i) => i);
    const loader = await loaderOf(await pictures(40, bad), { batch: 1 });
    const message = await messageOf(
      (async () => {
        for (;;) await loader.next();
      })(),
    );
    expect(message).toMatch(/^FormatError: \d+ of the \d+ pictures of .* cannot be read/);
    expect(await messageOf(loader.next())).toBe(message);
  });

  it("fails for a missing data set", async () => {
    expect(await messageOf(loaderOf("/nowhere"))).toMatch(
      /^UsageError: Cannot open the folder \/nowhere: there is no such file or folder/,
    );
  });

  it("can be closed at any time, and stays closed", async () => {
    const loader = await loaderOf(await pictures(4));
    const batches = Promise.allSettled(Array.from({ length: 200 }, () => loader.next()));
    await loader.close();
    await loader.close();
    const outcomes = (await batches).map(({ status }) => status);
    expect(outcomes.at(-1)).toBe("rejected");
    expect(await messageOf(loader.next())).toContain("The loader is closed");
  });

  it("does not keep the process alive", async () => {
    const path = await pictures(4);
    const script = `${await folderOf()}/script.mjs`;
    const source = `
      const { openLoader } = await import(${JSON.stringify(pathToFileURL("src/data/loading/loader-node.ts").href)});
      const data = { kind: "images", path: ${JSON.stringify(path)}, fit: "cover", background: "white", flip: false, undescribed: "refuse" };
      const loader = await openLoader({ data, shape: ${JSON.stringify(small)}, batch: 2, seed: 1, from: 0 });
      await loader.next();
      console.log("done");
    `;
    await writeFile(script, source);
    const { stdout, status } = spawnSync(process.execPath, [...typescript, script], {
      encoding: "utf8",
      timeout: 30_000,
    });
    expect({ stdout, status }).toEqual({ stdout: "done\n", status: 0 });
  });
});
