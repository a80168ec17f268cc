/** WebDataset archives. */
import { packTar } from "modern-tar";
import { joined } from "../../../src/engine/bytes.ts";
import { colour, dataReader } from "../data.ts";
import { below, bytes, lengthFields, type Mutation } from "../mutations.ts";
import type { OpenTarget } from "../target.ts";

const BLOCK = 512;

/** Damages one header or extended header and gives it the right checksum. */
const header: Mutation = (random, input, other) => {
  const blocks = Math.floor(input.length / BLOCK);
  if (blocks === 0) return bytes(random, input, other);
  const at = BLOCK * below(random, blocks);
  const block = (random() < 0.5 ? bytes : lengthFields)(random, input.slice(at, at + BLOCK), other);
  const copy = input.slice();
  copy.set(block.subarray(0, BLOCK), at);
  copy.fill(0x20, at + 148, at + 156);
  const sum = copy.subarray(at, at + BLOCK).reduce((total, byte) => total + byte, 0);
  copy.set(new TextEncoder().encode(`${sum.toString(8).padStart(6, "0")}\0 `), at + 148);
  return copy;
};

export const open: OpenTarget = async (folder) => {
  const file = (name: string, body: Uint8Array | string) => ({
    header: { name, size: body.length },
    body,
  });
  const link = (name: string, type: "link" | "symlink", linkname: string) => ({
    header: { name, size: 0, type, linkname } as const,
  });
  const picture = await colour(7);
  const plain = await packTar([
    file("a/0.png", picture),
    file("a/0.txt", "a cat"),
    file("a/0.cls", "1"),
    file("a/1.png", picture),
    file("a/1.txt", "a dog"),
    file("a/1.cls", "0"),
  ]);
  const special = await packTar([
    file(`${"long/".repeat(40)}0.png`, picture),
    file(`${"long/".repeat(40)}0.json`, '{"text":"a cat","n":[1]}'),
    link("b.png", "link", `${"long/".repeat(40)}0.png`),
    link("c.png", "symlink", "b.png"),
    file("b.json", '{"caption":null,"text":["x","y"]}'),
    file("c.json", '{"text":"z"}'),
  ]);
  return {
    sound: [plain, special, joined([plain, special])]
      .slice(0, 2)
      .map((each) => new Uint8Array(each)),
    mutations: [bytes, header, header],
    read: dataReader(folder, "shard.tar", { kind: "tar" }),
  };
};
