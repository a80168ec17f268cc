/**
 * Writes models/prompts/emoji.jsonl, the fixed prompts of `patchwise evaluate`, from the labels and tags of emojibase:
 *
 *   node scripts/run.mjs scripts/make-prompts.ts
 *
 * 500 prompts use the vocabulary that generators are trained on, half of them in English and half in Chinese. The others ask
 * for held-out emoji, for colours of simple shapes, and for things that no emoji shows.
 */
import { mkdir, readFile } from "node:fs/promises";
import { listRealEmoji } from "../src/comparison/emoji-gallery-node.ts";
import { type EmojiStyle, subjectOf, withArticle } from "../src/data/formats/emoji/captions.ts";
import { isHeldOut } from "../src/data/formats/emoji/emoji-node.ts";
import { locatePackageFiles } from "../src/data/formats/emoji/packages-node.ts";
import { fork, permutation, randomKey } from "../src/engine/random/random.ts";
import type { EvaluationPrompt } from "../src/evaluation/prompts.ts";
import { writeFileAtomic } from "../src/weights/sources/atomic-node.ts";

const FILE = "models/prompts/emoji.jsonl";
/** The styles that the bundled generator is trained on, by the words for them in prompts. */
const styles: Partial<Record<EmojiStyle, { readonly en: string; readonly zh: string }>> = {
  noto: { en: "noto", zh: "noto" },
  flat: { en: "flat", zh: "扁平" },
  twemoji: { en: "twemoji", zh: "twemoji" },
  emojione: { en: "emojione", zh: "emojione" },
};
/** Prompts of each form in each language. */
const forms = { label: 100, tag: 50, paraphrase: 50, style: 50 } as const;
/** The largest number of emoji of a tag; more common tags are too unspecific to have right answers. */
const MOST_ANSWERS = 4;
const HELD_OUT = 50;

const templates = {
  en: [
    (x: string) => `a picture of ${withArticle(x)}`,
    (x: string) => `${x} emoji`,
    (x: string) => `an icon of ${withArticle(x)}`,
    (x: string) => `draw ${withArticle(x)}`,
    (x: string) => `a small drawing of ${withArticle(x)}`,
  ],
  zh: [
    (x: string) => `一张${x}的图片`,
    (x: string) => `${x}表情符号`,
    (x: string) => `${x}的图标`,
    (x: string) => `画一个${x}`,
    (x: string) => `一幅${x}的小画`,
  ],
} as const;

const inStyle = {
  en: [
    (x: string, style: string) => `${x}, ${style} style`,
    (x: string, style: string) => `${style} style emoji of ${withArticle(x)}`,
  ],
  zh: [
    (x: string, style: string) => `${x}，${style}风格`,
    (x: string, style: string) => `${style}风格的${x}`,
  ],
} as const;

type Lang = "en" | "zh";
const languages: readonly Lang[] = ["en", "zh"];

/** Colours of shapes that are emoji themselves, and the emoji. */
const colours = [
  ["red", "红色", { heart: "2764", circle: "1F534", square: "1F7E5", book: "1F4D5" }],
  ["orange", "橙色", { heart: "1F9E1", circle: "1F7E0", square: "1F7E7", book: "1F4D9" }],
  ["yellow", "黄色", { heart: "1F49B", circle: "1F7E1", square: "1F7E8" }],
  ["green", "绿色", { heart: "1F49A", circle: "1F7E2", square: "1F7E9", book: "1F4D7" }],
  ["blue", "蓝色", { heart: "1F499", circle: "1F535", square: "1F7E6", book: "1F4D8" }],
  ["purple", "紫色", { heart: "1F49C", circle: "1F7E3", square: "1F7EA" }],
  ["brown", "棕色", { heart: "1F90E", circle: "1F7E4", square: "1F7EB" }],
  ["black", "黑色", { heart: "1F5A4", circle: "26AB", square: "2B1B" }],
  ["white", "白色", { heart: "1F90D", circle: "26AA", square: "2B1C" }],
  ["pink", "粉红色", { heart: "1FA77" }],
] as const;
const shapes: Readonly<Record<string, string>> = {
  heart: "心",
  circle: "圆",
  square: "方块",
  book: "书",
};

/** Things to combine: the English word, the Chinese word, and the emoji that show them; the first ones can wear something. */
const wearers = [
  ["cat", "猫", ["1F408", "1F431"]],
  ["dog", "狗", ["1F415", "1F436"]],
  ["rabbit", "兔子", ["1F407", "1F430"]],
  ["bear", "熊", ["1F43B"]],
  ["frog", "青蛙", ["1F438"]],
  ["horse", "马", ["1F40E", "1F434"]],
  ["pig", "猪", ["1F416", "1F437"]],
  ["ghost", "鬼", ["1F47B"]],
] as const;
const things = [
  ...wearers,
  ["bird", "鸟", ["1F426"]],
  ["fish", "鱼", ["1F41F", "1F420"]],
  ["car", "汽车", ["1F697", "1F698"]],
  ["tree", "树", ["1F333", "1F332"]],
  ["house", "房子", ["1F3E0", "1F3E1"]],
  ["star", "星星", ["2B50", "1F31F"]],
  ["apple", "苹果", ["1F34E", "1F34F"]],
  ["cup", "杯子", ["2615", "1F375"]],
] as const;
const worn = [
  ["a hat", "帽子", ["1F3A9", "1F452"]],
  ["a crown", "皇冠", ["1F451"]],
  ["glasses", "眼镜", ["1F453"]],
  ["a scarf", "围巾", ["1F9E3"]],
  ["a balloon", "气球", ["1F388"]],
  ["an umbrella", "雨伞", ["2602", "2614"]],
] as const;
/** Compositions in each language. */
const [COLOURED, WEARING] = [30, 20];

interface Named {
  readonly hexcode: string;
  readonly label: string;
  readonly tags?: readonly string[];
}

const paths = locatePackageFiles(
  languages.map((lang) => `emojibase-data/${lang}/data.json`),
  "The prompts",
);
const art = (await listRealEmoji()).filter(({ style }) => style in styles);
const drawnIn = new Map<string, EmojiStyle[]>();
for (const { hexcode, style } of art) {
  drawnIn.set(hexcode, [...(drawnIn.get(hexcode) ?? []), style]);
}
const prompts: EvaluationPrompt[] = [];
const perKind = new Map<string, EvaluationPrompt[]>();
for (const [i, lang] of languages.entries()) {
  const list = JSON.parse(await readFile(paths[i]!, "utf8")) as Named[];
  const all = list.filter(({ hexcode }) => drawnIn.has(hexcode));
  for (const prompt of promptsOf(lang, all)) {
    perKind.set(prompt.kind, [...(perKind.get(prompt.kind) ?? []), prompt]);
  }
}
// Shuffled, so that the first few of each kind have every form and both languages.
for (const [kind, own] of perKind) {
  prompts.push(...shuffled(own, `order of ${kind}`));
  console.log(`${own.length} prompts of kind ${kind}`);
}
await mkdir("models/prompts", { recursive: true });
const lines = prompts.map((prompt) => `${JSON.stringify(prompt)}\n`).join("");
await writeFileAtomic(FILE, new TextEncoder().encode(lines));

function promptsOf(lang: Lang, all: readonly Named[]): EvaluationPrompt[] {
  const trained = all.filter(({ hexcode }) => !isHeldOut(hexcode));
  const subject = ({ label }: Named) =>
    lang === "en" ? subjectOf(label) : label.replaceAll(": ", "，");
  const [labelled, paraphrased, styled] = [
    shuffled(trained, `${lang} labels`),
    shuffled(trained, `${lang} paraphrases`),
    shuffled(trained, `${lang} styles`),
  ];
  const one = (emoji: Named) => [emoji.hexcode];
  return [
    ...labelled.slice(0, forms.label).map((emoji): EvaluationPrompt => ({
      prompt: subject(emoji),
      lang,
      kind: "training",
      form: "label",
      answers: one(emoji),
    })),
    ...taggedPrompts(lang, all),
    ...paraphrased.slice(0, forms.paraphrase).map((emoji, i): EvaluationPrompt => ({
      prompt: templates[lang][i % templates[lang].length]!(subject(emoji)),
      lang,
      kind: "training",
      form: "paraphrase",
      answers: one(emoji),
    })),
    ...styled.slice(0, forms.style).map((emoji, i): EvaluationPrompt => {
      const offered = drawnIn.get(emoji.hexcode)!;
      const style = offered[i % offered.length]!;
      const write = inStyle[lang][i % inStyle[lang].length]!;
      return {
        prompt: write(subject(emoji), styles[style]![lang]),
        lang,
        kind: "training",
        form: "style",
        answers: one(emoji),
        style,
      };
    }),
    ...colourPrompts(lang),
    ...shuffled(
      all.filter(({ hexcode }) => isHeldOut(hexcode)),
      `${lang} held-out`,
    )
      .slice(0, HELD_OUT)
      .map((emoji): EvaluationPrompt => ({
        prompt: subject(emoji),
        lang,
        kind: "held-out",
        answers: one(emoji),
      })),
    ...compositions(lang),
  ];
}

/** Tags that few emoji have; each of these emoji is a right answer. */
function taggedPrompts(lang: Lang, all: readonly Named[]): EvaluationPrompt[] {
  const byTag = new Map<string, string[]>();
  for (const { hexcode, label, tags = [] } of all) {
    // Emoji whose label is the word itself are right answers too.
    for (const tag of new Set([label, ...tags])) {
      byTag.set(tag, [...(byTag.get(tag) ?? []), hexcode]);
    }
  }
  const labels = new Set(all.map(({ label }) => label));
  const words = lang === "en" ? /^[a-z][a-z ]{2,}$/ : /^\p{Script=Han}{1,8}$/u;
  const usable = [...byTag].filter(
    ([tag, answers]) =>
      words.test(tag) &&
      !labels.has(tag) &&
      answers.length <= MOST_ANSWERS &&
      answers.some((hexcode) => !isHeldOut(hexcode)),
  );
  return shuffled(usable, `${lang} tags`)
    .slice(0, forms.tag)
    .map(([prompt, answers]) => ({ prompt, lang, kind: "training", form: "tag", answers }));
}

function colourPrompts(lang: Lang): EvaluationPrompt[] {
  return colours.flatMap(([en, zh, own]) =>
    Object.entries(own).map(([shape, hexcode]): EvaluationPrompt => ({
      prompt: lang === "en" ? `${en} ${shape}` : `${zh}的${shapes[shape]!}`,
      lang,
      kind: "colour",
      answers: [hexcode],
    })),
  );
}

function compositions(lang: Lang): EvaluationPrompt[] {
  const coloured = colours.flatMap(([en, zh]) =>
    things.map(([name, chinese, answers]): EvaluationPrompt => ({
      prompt: lang === "en" ? `${en} ${name}` : `${zh}的${chinese}`,
      lang,
      kind: "composition",
      answers: [...answers],
    })),
  );
  const wearing = wearers.flatMap(([name, chinese, own]) =>
    worn.map(([accessory, chineseAccessory, others]): EvaluationPrompt => ({
      prompt: lang === "en" ? `${name} with ${accessory}` : `${chinese}和${chineseAccessory}`,
      lang,
      kind: "composition",
      answers: [...own, ...others],
    })),
  );
  // Combinations that exist as emoji, such as a black cat, are not compositions.
  const unreal = coloured.filter(({ prompt }) => !/^(black|brown|黑色的|棕色的)/.test(prompt));
  return [
    ...shuffled(unreal, `${lang} coloured`).slice(0, COLOURED),
    ...shuffled(wearing, `${lang} wearing`).slice(0, WEARING),
  ];
}

/** Shuffles items in an order that depends on `purpose` alone. */
function shuffled<T>(items: readonly T[], purpose: string): T[] {
  const order = permutation(fork(randomKey(0), purpose), items.length);
  return Array.from(order, (i) => items[i]!);
}
