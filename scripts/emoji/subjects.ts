/**
 * Writes the names of the subjects of the bundled model's prior, which the studio shows: an emoji, its English label and its Chinese
 * label for each. Run it after train-prompts.ts, which numbers them: node scripts/run.mjs scripts/emoji/subjects.ts
 */
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { isHeldOut, listEmojiPictures } from "../../src/data/formats/emoji/emoji-node.ts";
import { emojiGroups } from "../../src/data/formats/emoji/captions.ts";
import { styles } from "./pictures.ts";

const { resolve: find } = createRequire(import.meta.url);

interface Named {
  readonly hexcode: string;
  readonly emoji: string;
  readonly label: string;
}

async function named(language: string): Promise<ReadonlyMap<string, Named>> {
  const text = await readFile(find(`emojibase-data/${language}/compact.json`), "utf8");
  const all = JSON.parse(text) as readonly (Named & { readonly unicode: string })[];
  return new Map(all.map((each) => [each.hexcode, { ...each, emoji: each.unicode }]));
}

const groups = emojiGroups.filter((group) => group !== "component" && group !== "flags");
const list = await listEmojiPictures({
  kind: "emoji",
  groups: [...groups],
  styles: [...styles],
  skinTones: false,
  split: "all",
} as Parameters<typeof listEmojiPictures>[0]);
const known = [...new Set(list.map(({ hexcode }) => hexcode))].filter((each) => !isHeldOut(each));
const [en, zh] = await Promise.all([named("en"), named("zh")]);
const rows = known.map((hexcode) => {
  const { emoji, label } = en.get(hexcode)!;
  return [emoji, label, zh.get(hexcode)?.label ?? label];
});
const out = join(resolve(import.meta.dirname, "../.."), "studio/public/subjects.json");
await writeFile(out, JSON.stringify(rows));
console.log(`${rows.length} subjects`);
