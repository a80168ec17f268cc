import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pipelineDrawer } from "../../src/bulk/drawer.ts";
import { pictureFolder } from "../../src/bulk/folder.ts";
import { promptLines } from "../../src/bulk/lines.ts";
import { drawLines } from "../../src/bulk/run.ts";
import { packShards } from "../../src/bulk/shards.ts";
import { type LineTask, plannedLines } from "../../src/bulk/tasks.ts";
import { dataSchema } from "../../src/data/config.ts";
import { tarOf } from "../../src/data/formats/write-tar.ts";
import { tarEntries } from "../../src/data/formats/tar.ts";
import { openData } from "../../src/data/open-node.ts";
import { joined } from "../../src/engine/bytes.ts";
import { decodePicture } from "../../src/pictures/decode-node.ts";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import { bytesSource } from "../../src/weights/sources/source.ts";
import { tinyTextNetwork } from "../support/tiny-model.ts";
import { writeTrained } from "../support/trained-folder.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-shards-"));
const folder = path.join(scratch, "out");
const shards = path.join(folder, "shards");
let tasks: readonly LineTask[];
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

beforeAll(async () => {
  await writeTrained(path.join(scratch, "model"), tinyTextNetwork);
  const pipeline = await openPipeline(path.join(scratch, "model"));
  const by = { model: pipeline.name, version: "0" };
  const words = ["a red cat", "blue dog", "the\nmoon"];
  const text = Array.from({ length: 20 }, (_, i) =>
    JSON.stringify({ prompt: words[i % 3], ...(i === 4 && { name: `é${"x".repeat(110)}` }) }),
  );
  ({ tasks } = plannedLines(promptLines(text.join("\n"), "a.jsonl", { steps: 2 }), pipeline, by));
  mkdirSync(folder);
  const drawer = pipelineDrawer(pipeline, 8);
  await drawLines(tasks, drawer, pictureFolder(folder), { by });
  await drawer.close();
});

describe("shards of drawn pictures", () => {
  it.each([
    ["webdataset", "tar", ".tar"],
    ["parquet", "parquet", ".parquet"],
  ] as const)("are opened for training: %s", async (kind, reader, extension) => {
    const names = await packShards(folder, tasks, kind, 8);
    expect(names.map((name) => path.relative(shards, name))).toEqual(
      [0, 1, 2].map((i) => `pictures-0000${i}${extension}`),
    );
    expect(readdirSync(shards)).toHaveLength(3);
    const before = names.map((name) => readFileSync(name));
    await packShards(folder, tasks, kind, 8);
    expect(names.map((name) => readFileSync(name))).toEqual(before);

    const shape = { width: 8, height: 8, channels: 3 as const };
    const config = dataSchema.parse({ kind: reader, path: shards });
    const data = await openData(config, shape);
    expect(data).toMatchObject({ count: 20, captioned: true, notes: [] });
    for (const [i, { file, record }] of tasks.entries()) {
      const { pixels, captions } = await data.example(i);
      expect(captions.join(" ")).toBe(
        kind === "parquet" ? record.prompt : record.prompt!.replace("\n", " "),
      );
      const bytes = readFileSync(path.join(folder, file));
      expect(pixels).toEqual(await decodePicture(bytes, file, shape, config as never));
    }
    await data.close();
  });

  it("are as few as there are pictures for", async () => {
    await packShards(folder, tasks, "webdataset", 8);
    await packShards(folder, tasks.slice(0, 3), "webdataset", 100);
    expect(readdirSync(shards)).toEqual(["pictures-00000.tar"]);
    await packShards(folder, tasks, "parquet", 100);
    expect(readdirSync(shards)).toEqual(["pictures-00000.parquet"]);
  });
});

describe("a tar archive that is written", () => {
  it("is read with the same names and contents, long names and other scripts among them", async () => {
    const names = ["a", "b/c.txt", "x".repeat(100), "y".repeat(101), "猫.png", "é".repeat(80)];
    const files = names.map((name, i) => ({ name, bytes: new Uint8Array(i * 300).fill(i) }));
    const archive = bytesSource(joined([...tarOf(files)]), "a.tar");
    const entries = await tarEntries(archive);
    expect(entries.map(({ name }) => name)).toEqual(names);
    for (const [i, { offset, size }] of entries.entries())
      expect([...(await archive.read(offset, size))]).toEqual([...files[i]!.bytes]);
  });
});
