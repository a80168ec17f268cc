/** Answers of a server in the Hugging Face Hub's place: the commit, the list of files, and a file itself. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { tryJson } from "../../../src/engine/bytes.ts";
import { hubSnapshot } from "../../../src/weights/hub/hub-node.ts";
import { gitOid } from "../../../test/support/hub-server.ts";
import { jsonValues, textWords } from "../mutations.ts";
import type { OpenTarget } from "../target.ts";

const content = '{"a":1}';
const commit = "0123456789abcdef0123456789abcdef01234567";
const listed = { type: "file", path: "model.json", size: content.length, oid: gitOid(content) };
const large = { oid: "ab".repeat(32), size: 9, pointerSize: 130 };

/** The bodies and headers of all answers, by what is asked for. */
const sound = {
  revision: { _id: "0", id: "a/b", sha: commit, private: false },
  tree: [
    listed,
    { type: "directory", path: "x", size: 0, oid: commit },
    { type: "file", path: "w.safetensors", size: 9, oid: commit, lfs: large },
  ],
  resolve: content,
  status: 200,
  link: "",
  location: "",
};

type Answers = Partial<Record<keyof typeof sound, unknown>>;

/** Answers in the place of the network. */
function answer(url: string, input: Uint8Array): Response {
  const answers = (tryJson(new TextDecoder().decode(input)) ?? {}) as Answers;
  const asked = (["revision", "tree", "resolve"] as const).find((verb) =>
    url.includes(`/${verb}/`),
  );
  const value = asked && answers[asked];
  const body =
    value === undefined ? input.slice() : typeof value === "string" ? value : JSON.stringify(value);
  const status = Number(answers.status ?? 200);
  const headers: Record<string, string> = {};
  for (const name of ["link", "location"] as const) {
    const text = answers[name];
    if (typeof text === "string" && /^[\x20-\x7e]+$/.test(text)) headers[name] = text;
  }
  return new Response(body, {
    status:
      status >= 200 && status <= 599 && status % 1 === 0 && ![204, 205, 304].includes(status)
        ? status
        : 200,
    headers,
  });
}

export const open: OpenTarget = (folder) => {
  process.env["HF_HOME"] = join(folder, "hub");
  process.env["HF_ENDPOINT"] = "http://127.0.0.1:9";
  let current = new Uint8Array(0);
  globalThis.fetch = async (url) => {
    const at = url instanceof Request ? url.url : String(url);
    if (!at.startsWith("http")) throw new TypeError("fetch failed");
    return answer(at, current);
  };
  return {
    sound: [new TextEncoder().encode(JSON.stringify(sound))],
    mutations: [jsonValues, jsonValues, textWords],
    async read(input) {
      current = input.slice();
      await rm(join(folder, "hub"), { recursive: true, force: true });
      await hubSnapshot(
        { repo: "a/b", revision: "main" },
        async (paths) => paths.filter((path) => path.endsWith(".json")),
        { attempts: 1 },
      );
    },
  };
};
