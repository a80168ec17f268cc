/** Weights in the GGUF format: metadata and shapes, then every tensor, expanded. */
import { readFileSync } from "node:fs";
import { joined } from "../../../src/engine/bytes.ts";
import { openGGUF } from "../../../src/weights/gguf/gguf.ts";
import { readTensor } from "../../../src/weights/safetensors/safetensors.ts";
import { bytesSource } from "../../../src/weights/sources/source.ts";
import { bytes, lengthFields, type Mutation } from "../mutations.ts";
import type { OpenTarget } from "../target.ts";

const folder = new URL("../../../test/fixtures/gguf/", import.meta.url);

/** Bytes in front of the tensors, at most. */
const HEAD = 2500;

/** Damages counts, lengths, types and names, which all stand in front of the tensors. */
const head: Mutation = (random, input, other) => {
  const change = random() < 0.3 ? bytes : lengthFields;
  return joined([change(random, input.slice(0, HEAD), other), input.subarray(HEAD)]);
};

export const open: OpenTarget = () => ({
  sound: ["model.gguf", "aligned.gguf"].map(
    (name) => new Uint8Array(readFileSync(new URL(name, folder))),
  ),
  mutations: [bytes, head, head],
  async read(input) {
    const { entries } = await openGGUF(bytesSource(input.slice(), "f"));
    for (const entry of entries.values()) await readTensor(entry);
  },
});
