import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import { openDiffusersWeights } from "../../src/weights/diffusers-weights.ts";
import { fieldsIn, jsonIn, type ModelFolder } from "../../src/weights/sources/folder.ts";
import { diskFolder } from "../../src/weights/sources/folder-node.ts";
import { urlFolder } from "../../src/weights/sources/folder-url.ts";
import { writeSafetensors } from "../../src/weights/index-node.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-folder-"));
const asked: string[] = [];
let server: Server;
let address: string;

beforeAll(async () => {
  mkdirSync(path.join(scratch, "a model", "inside"), { recursive: true });
  const at = (...parts: string[]) => path.join(scratch, "a model", ...parts);
  writeFileSync(at("config.json"), '{ "width": 3 }');
  writeFileSync(at("list.json"), "[1]");
  writeFileSync(at("broken.json"), "{");
  const tensor = ndarray("float32", [2], [1, 2]);
  await writeSafetensors(at("inside", "model.fp16.safetensors"), [["w", tensor]]);
  await writeSafetensors(at("first.safetensors"), [["a", tensor]]);
  const index = { metadata: {}, weight_map: { a: "first.safetensors" } };
  writeFileSync(at("model.safetensors.index.json"), JSON.stringify(index));
  server = createServer(({ url = "/", method, headers }, response) => {
    asked.push(`${method} ${url} ${headers.range ?? ""}`.trim());
    const { pathname, search } = new URL(url, "http://127.0.0.1");
    if (search !== "?key=1") return response.writeHead(403).end();
    let bytes: Buffer;
    try {
      bytes = readFileSync(path.join(scratch, decodeURIComponent(pathname)));
    } catch {
      return response.writeHead(404).end("nothing here");
    }
    const range = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "");
    if (!range) return response.writeHead(200, { "Content-Length": bytes.length }).end(bytes);
    const [first, last] = [Number(range[1]), Number(range[2])];
    const part = bytes.subarray(first, last + 1);
    return response
      .writeHead(206, { "Content-Range": `bytes ${first}-${last}/${bytes.length}` })
      .end(part);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/a%20model`;
});
afterAll(() => {
  server.close();
  server.closeAllConnections();
  rmSync(scratch, { recursive: true });
});

const kinds: readonly (readonly [string, () => ModelFolder])[] = [
  ["on disk", () => diskFolder(path.join(scratch, "a model"))],
  ["behind an address", () => urlFolder(`${address}?key=1`)],
  ["behind an address with a slash", () => urlFolder(`${address}/?key=1`)],
  ["behind an address, by ranges", () => urlFolder(`${address}?key=1`, {}, 10)],
];

describe.each(kinds)("a folder %s", (_, open) => {
  it("has a name and reads its files", async () => {
    const folder = open();
    expect(folder.basename).toBe("a model");
    expect(await folder.has("config.json")).toBe(true);
    expect(await folder.has("other.json")).toBe(false);
    expect((await fieldsIn(folder, "config.json")).count("width")).toBe(3);
  });

  it("opens weights in one file, in shards, and of a variant in a subfolder", async () => {
    const folder = open();
    for (const [weights, name] of [
      [await folder.weights("first.safetensors"), "a"],
      [await folder.weights("model.safetensors.index.json"), "a"],
      [await openDiffusersWeights(folder.folder("inside"), "model"), "w"],
    ] as const) {
      expect([...(await weights.read(name)).data]).toEqual([1, 2]);
      await weights.close();
    }
  });

  it("names missing and invalid files", async () => {
    const folder = open();
    await expect(folder.read("other.json")).rejects.toThrow("other.json");
    await expect(jsonIn(folder, "broken.json")).rejects.toThrow(
      `${folder.pathOf("broken.json")} is not valid JSON`,
    );
    await expect(fieldsIn(folder, "list.json")).rejects.toThrow("is not a JSON object");
    await expect(openDiffusersWeights(folder)).rejects.toThrow(
      "holds no weights: there is no diffusion_pytorch_model.safetensors",
    );
  });
});

it("uses range requests only for weights above the limit", async () => {
  const ranges = async (wholeBytes?: number) => {
    asked.length = 0;
    await urlFolder(`${address}?key=1`, {}, wholeBytes).weights("first.safetensors");
    return asked.filter((line) => line.includes("bytes=")).length;
  };
  expect(await ranges()).toBe(0);
  expect(await ranges(10)).toBeGreaterThan(0);
});

it("opens the default weights, or else the first variant", async () => {
  const folder = path.join(scratch, "variants");
  mkdirSync(folder);
  const opened = async () => {
    const weights = await openDiffusersWeights(diskFolder(folder), "model");
    await weights.close();
    return path.basename(weights.name);
  };
  for (const variant of [".non_ema", ".fp16", ".bf16", ""]) {
    const file = `model${variant}.safetensors`;
    await writeSafetensors(path.join(folder, file), [["w", ndarray("float32", [1], [1])]]);
    expect(await opened()).toBe(file);
  }
});

it("distinguishes a refusal from a missing file, without printing the key", async () => {
  const refused = urlFolder(`${address}?key=2`).has("config.json");
  await expect(refused).rejects.toThrow(
    /^http:\S+a%20model\/ does not serve config.json \(HTTP 403\)/,
  );
  await expect(refused).rejects.not.toThrow("key");
});

it("is not misled by a server that answers every address with the page of an app", async () => {
  const own = createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" });
    response.end("<!doctype html><title>app</title>");
  });
  await new Promise<void>((done) => own.listen(0, "127.0.0.1", done));
  const { port } = own.address() as AddressInfo;
  const folder = urlFolder(`http://127.0.0.1:${port}/models/mistyped/`);
  expect(await folder.has("model.json")).toBe(false);
  await expect(folder.read("model.json")).rejects.toThrow(
    "/models/mistyped/ does not serve model.json (it answers with a web page); use the URL of a complete and readable model folder.",
  );
  await new Promise((done) => own.close(done));
});
