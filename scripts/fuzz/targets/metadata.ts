/** metadata.jsonl and metadata.csv of a folder of pictures. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseMetadata } from "../../../src/data/formats/metadata-node.ts";
import { colour, dataReader } from "../data.ts";
import { bytes, textWords } from "../mutations.ts";
import type { FuzzTarget, OpenTarget } from "../target.ts";

const sound = [
  '{"file_name":"a.png","text":"a cat","label":"cat"}\n{"file_name":"b.png","text":["a dog","it"],"label":1}\n',
  'file_name,text,label\na.png,"a cat, ""red""",cat\r\nb.png,"a\ndog",dog\n',
];

export const open: OpenTarget = async (folder) => {
  const readers: FuzzTarget["read"][] = [];
  for (const name of ["metadata.jsonl", "metadata.csv"]) {
    await mkdir(join(folder, name), { recursive: true });
    for (const picture of ["a.png", "b.png"]) {
      await writeFile(join(folder, name, picture), await colour(9));
    }
    readers.push(dataReader(folder, `${name}/${name}`, { kind: "images" }, name));
  }
  const isTable = (input: Uint8Array) =>
    new TextDecoder().decode(input.subarray(0, 60)).includes(",text");
  return {
    sound: sound.map((text) => new TextEncoder().encode(text)),
    mutations: [bytes, textWords, textWords],
    read(input) {
      const [i, name] = isTable(input) ? [1, "metadata.csv"] : [0, "metadata.jsonl"];
      parseMetadata(new TextDecoder().decode(input), name, {
        caption: undefined,
        label: undefined,
      });
      // Only tables that can be read tell which pictures are opened.
      return readers[i]!(input);
    },
  };
};
