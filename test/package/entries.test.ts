/** The entry points of the package, as plain Node and servers that render pages load them, and what they say of wrong options. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { PatchwiseError } from "../../src/engine/errors.ts";
import { nodeBackend } from "../../src/engine/index-node.ts";
import { webBackend } from "../../src/engine/index-web.ts";
import * as pictures from "../../src/pictures/index-node.ts";
import { imageModel } from "../../src/pipelines/ai-sdk-node.ts";
import { openPipeline } from "../../src/pipelines/index-node.ts";
import { openPipelineBytes, openPipelineUrl } from "../../src/pipelines/index.ts";
import { trainModel } from "../../src/training/index.ts";
import { openInWorker } from "../../src/web/index.ts";

const root = path.resolve(import.meta.dirname, "../..");
const { exports } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as {
  exports: Record<string, string | object>;
};
/** The scripts of workers are not imported but started. */
const entries = Object.keys(exports)
  .filter((entry) => !entry.includes("worker"))
  .map((entry) => `patchwise${entry.slice(1)}`);

/** Imports and requires every entry where reading a global name of pages ends the program. */
const program = `
  import { createRequire } from "node:module";
  for (const name of ["window", "document", "self", "location", "HTMLElement", "customElements", "caches", "Worker", "ImageData"]) {
    Object.defineProperty(globalThis, name, { get() { console.error(name + " was read"); process.exit(1); } });
  }
  const require = createRequire(${JSON.stringify(path.join(root, "test/entries.cjs"))});
  const named = ${JSON.stringify(entries.filter((entry) => !entry.endsWith(".json")))};
  const counts = [];
  for (const entry of named) counts.push([entry, Object.keys(require(entry)).length, Object.keys(await import(require.resolve(entry))).length]);
  console.log(JSON.stringify(counts));
`;

it("is imported and required in plain Node, where no import reads a global name of pages", () => {
  const said = execFileSync("node", ["--no-warnings", "--input-type=module", "-e", program], {
    cwd: root,
    encoding: "utf8",
  });
  const counts = JSON.parse(said) as [entry: string, required: number, imported: number][];
  expect(counts.length).toBeGreaterThan(15);
  for (const [, required, imported] of counts) {
    expect(imported).toBeGreaterThan(0);
    expect(required).toBe(imported);
  }
});

const picture = { width: 2, height: 1, channels: 1 as const, pixels: Uint8Array.of(0, 255) };
const backend = nodeBackend("cpu");

/** A call with what its types do not allow. */
const wrong = (call: unknown, ...given: unknown[]) =>
  (call as (...all: unknown[]) => unknown)(...given);

describe("a function refuses in one sentence, with a code,", () => {
  it.each<[string, () => unknown, string]>([
    [
      "an option that does not exist",
      () => wrong(openPipeline, "emoji", { workr: true }),
      'openPipeline: there is no option "workr"; did you mean worker?',
    ],
    [
      "an option of another type",
      () => wrong(openPipeline, "emoji", { worker: "yes" }),
      'openPipeline: worker must be true or false, got "yes".',
    ],
    [
      "null as options",
      () => wrong(openPipeline, "emoji", null),
      "openPipeline: the options must be an object, got null.",
    ],
    [
      "no model",
      () => wrong(openPipeline),
      "the name, folder or file of the model must be a text, got undefined.",
    ],
    [
      "no backend",
      () => wrong(openPipelineUrl, "http://localhost/", {}),
      'openPipelineUrl: backend must be a backend, such as webBackend({ device: "wasm" }) or nodeBackend("cpu"), got undefined.',
    ],
    [
      "a misspelled callback",
      () => wrong(openPipelineUrl, "http://localhost/", { backend, onProgres() {} }),
      'openPipelineUrl: there is no option "onProgres"; did you mean onProgress?',
    ],
    [
      "no options of a model in memory",
      () => wrong(openPipelineBytes, {}),
      "openPipelineBytes: the options must be an object, got undefined.",
    ],
    [
      "an option of a backend in Node",
      () => wrong(nodeBackend, "cpu", { workr: true }),
      'nodeBackend: there is no option "workr"; did you mean worker?',
    ],
    [
      "an option of a backend in pages",
      () => wrong(webBackend, { device: "wasm", wasmPath: "/ort/" }),
      'webBackend: there is no option "wasmPath"; did you mean wasmPaths?',
    ],
    [
      "threads that are no number",
      () => wrong(webBackend, { device: "wasm", threads: "4" }),
      'webBackend: threads must be a whole number from 1, got "4".',
    ],
    [
      "an option of a worker",
      () => wrong(openInWorker, "/models/emoji/", { devise: "wasm" }),
      'openInWorker: there is no option "devise"; did you mean device?',
    ],
    [
      "no picture",
      () => wrong(pictures.toPng, { ...picture, pixels: Uint8Array.of(0) }),
      "toPng: the picture must be a picture: width, height, channels (1 or 3) and one byte for each in pixels, got { width: 2, height: 1, channels: 1, pixels: bytes }.",
    ],
    [
      "a Blob of another type",
      () => wrong(pictures.toBlob, picture, "image/gif"),
      'toBlob: the type must be image/png or image/jpeg or image/webp, got "image/gif".',
    ],
    [
      "a name in place of bytes",
      () => wrong(pictures.readPicture, "a.png"),
      'readPicture: the content of the file must be a Uint8Array of its bytes, got "a.png".',
    ],
    [
      "arguments in another order",
      () => wrong(pictures.writePicture, picture, "a.png"),
      "writePicture: the name of the file must be a text, got { width: 2, height: 1, channels: 1, pixels: bytes }.",
    ],
    [
      "a name in place of a pipeline",
      () => wrong(imageModel, "emoji"),
      'imageModel: the pipeline must be a pipeline, such as await openPipeline("emoji"), got "emoji".',
    ],
    [
      "pictures that are none",
      () => wrong(trainModel, { backend, pictures: [5] }),
      "picture 0 must be a picture: width, height, channels (1 or 3) and one byte for each in pixels, got 5.",
    ],
  ])("%s", async (_, call, sentence) => {
    const error: unknown = await (async () => call())().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(PatchwiseError);
    expect(error).toMatchObject({ code: "usage", message: sentence });
  });
});
