/**
 * The captions that the prompt encoder of the bundled model learns: labels and tags of emojibase in English and Chinese, in many
 * wordings, with styles, colours and companions.
 */
import { readFile } from "node:fs/promises";
import { subjectOf, withArticle } from "../../src/data/formats/emoji/captions.ts";
import { locatePackageFiles } from "../../src/data/formats/emoji/packages-node.ts";
import { type Colour, colours, styles } from "./pictures.ts";

/** The languages, by emojibase's names. */
const languages = ["en", "zh", "zh-hant"] as const;
type Language = (typeof languages)[number];

/** What a caption says. Subjects and companions are shares of the emoji that its words can mean. */
export interface Caption {
  readonly text: string;
  readonly subjects: readonly number[];
  readonly style: number;
  /** 0 for the subject's own colours, else 1 + the index of the colour. */
  readonly colour: number;
  /** Empty without a companion. */
  readonly companions: readonly number[];
}

/** Numbers in [0, 1), a new one each time. */
export type Draw = () => number;

/** The words for an emoji in one language. */
interface Named {
  readonly label: string;
  readonly tags: readonly string[];
}

export interface Captions {
  draw(u: Draw): Caption;
  /** Every character of the captions' languages. */
  readonly characters: ReadonlySet<string>;
}

const frames: Record<Language, readonly ((x: string) => string)[]> = {
  en: [
    (x) => x,
    (x) => x,
    withArticle,
    (x) => `${x} emoji`,
    (x) => `a picture of ${withArticle(x)}`,
    (x) => `picture of ${x}`,
    (x) => `an icon of ${withArticle(x)}`,
    (x) => `${x} icon`,
    (x) => `draw ${withArticle(x)}`,
    (x) => `draw me ${withArticle(x)}`,
    (x) => `a small drawing of ${withArticle(x)}`,
    (x) => `a drawing of ${withArticle(x)}`,
    (x) => `an emoji of ${withArticle(x)}`,
    (x) => `an image of ${withArticle(x)}`,
    (x) => `the ${x}`,
    (x) => `show ${withArticle(x)}`,
    (x) => `i want ${withArticle(x)}`,
    (x) => `a cute ${x}`,
    (x) => `a simple ${x}`,
    (x) => `${x}!`,
  ],
  zh: [
    (x) => x,
    (x) => x,
    (x) => x,
    (x) => `一个${x}`,
    (x) => `一张${x}的图片`,
    (x) => `${x}表情符号`,
    (x) => `${x}表情`,
    (x) => `${x}的图标`,
    (x) => `${x}图标`,
    (x) => `画一个${x}`,
    (x) => `画${x}`,
    (x) => `请画一个${x}`,
    (x) => `一幅${x}的小画`,
    (x) => `${x}的画`,
    (x) => `可爱的${x}`,
    (x) => `一只${x}`,
    (x) => `一辆${x}`,
    (x) => `我要一个${x}`,
  ],
  "zh-hant": [(x) => x, (x) => x, (x) => `一個${x}`, (x) => `畫一個${x}`, (x) => `${x}的圖片`],
};

const inStyle: Record<Language, readonly ((x: string, style: string) => string)[]> = {
  en: [
    (x, style) => `${x}, ${style} style`,
    (x, style) => `${x} in ${style} style`,
    (x, style) => `${style} ${x}`,
    (x, style) => `${style} style ${x}`,
    (x, style) => `${style} style emoji of ${withArticle(x)}`,
    (x, style) => `${x} ${style}`,
    (x, style) => `${x} in the style of ${style}`,
  ],
  zh: [
    (x, style) => `${x}，${style}风格`,
    (x, style) => `${style}风格的${x}`,
    (x, style) => `${style}风格${x}`,
    (x, style) => `${x} ${style}`,
  ],
  "zh-hant": [(x, style) => `${x}，${style}風格`, (x, style) => `${style}風格的${x}`],
};

const styleWords: Record<Language, Record<(typeof styles)[number], readonly string[]>> = {
  en: { noto: ["noto"], flat: ["flat", "fluent"], twemoji: ["twemoji"], emojione: ["emojione"] },
  zh: { noto: ["noto"], flat: ["扁平", "flat"], twemoji: ["twemoji"], emojione: ["emojione"] },
  "zh-hant": { noto: ["noto"], flat: ["扁平"], twemoji: ["twemoji"], emojione: ["emojione"] },
};

const colourWords: Record<Language, Record<Colour, readonly string[]>> = {
  en: {
    red: ["red"],
    orange: ["orange"],
    yellow: ["yellow"],
    green: ["green"],
    blue: ["blue"],
    purple: ["purple", "violet"],
    pink: ["pink"],
    brown: ["brown"],
    black: ["black"],
    white: ["white"],
    grey: ["grey", "gray"],
  },
  zh: {
    red: ["红色的", "红色", "红"],
    orange: ["橙色的", "橙色", "橘色的"],
    yellow: ["黄色的", "黄色", "黄"],
    green: ["绿色的", "绿色", "绿"],
    blue: ["蓝色的", "蓝色", "蓝"],
    purple: ["紫色的", "紫色", "紫"],
    pink: ["粉红色的", "粉色的", "粉红"],
    brown: ["棕色的", "棕色", "褐色的"],
    black: ["黑色的", "黑色", "黑"],
    white: ["白色的", "白色", "白"],
    grey: ["灰色的", "灰色", "灰"],
  },
  "zh-hant": {
    red: ["紅色的", "紅色"],
    orange: ["橙色的", "橙色"],
    yellow: ["黃色的", "黃色"],
    green: ["綠色的", "綠色"],
    blue: ["藍色的", "藍色"],
    purple: ["紫色的", "紫色"],
    pink: ["粉紅色的", "粉色的"],
    brown: ["棕色的", "棕色"],
    black: ["黑色的", "黑色"],
    white: ["白色的", "白色"],
    grey: ["灰色的", "灰色"],
  },
};

/** Words that say a colour within a label, so that another colour would contradict them. */
const saysColour =
  /\b(red|orange|yellow|green|blue|purple|pink|brown|black|white|grey|gray)\b|[红橙黄绿蓝紫粉棕黑白灰紅黃綠藍]/;

/** Shapes that exist as an emoji in most colours: the words for the shape, and the emoji of each colour. */
const shapes: readonly {
  readonly words: Record<Language, readonly string[]>;
  readonly emoji: Partial<Record<Colour, string>>;
}[] = [
  {
    words: { en: ["heart", "love heart"], zh: ["心", "爱心", "心形"], "zh-hant": ["心", "愛心"] },
    emoji: {
      red: "2764",
      orange: "1F9E1",
      yellow: "1F49B",
      green: "1F49A",
      blue: "1F499",
      purple: "1F49C",
      brown: "1F90E",
      black: "1F5A4",
      white: "1F90D",
      pink: "1FA77",
      grey: "1FA76",
    },
  },
  {
    words: {
      en: ["circle", "ball", "dot", "disc"],
      zh: ["圆", "圆形", "圆圈", "圆点"],
      "zh-hant": ["圓", "圓形", "圓圈"],
    },
    emoji: {
      red: "1F534",
      orange: "1F7E0",
      yellow: "1F7E1",
      green: "1F7E2",
      blue: "1F535",
      purple: "1F7E3",
      brown: "1F7E4",
      black: "26AB",
      white: "26AA",
    },
  },
  {
    words: {
      en: ["square", "box", "block"],
      zh: ["方块", "正方形", "方形"],
      "zh-hant": ["方塊", "正方形"],
    },
    emoji: {
      red: "1F7E5",
      orange: "1F7E7",
      yellow: "1F7E8",
      green: "1F7E9",
      blue: "1F7E6",
      purple: "1F7EA",
      brown: "1F7EB",
      black: "2B1B",
      white: "2B1C",
    },
  },
  {
    words: { en: ["book"], zh: ["书", "书本"], "zh-hant": ["書", "書本"] },
    emoji: { red: "1F4D5", orange: "1F4D9", green: "1F4D7", blue: "1F4D8" },
  },
  {
    words: { en: ["apple"], zh: ["苹果"], "zh-hant": ["蘋果"] },
    emoji: { red: "1F34E", green: "1F34F" },
  },
];

const together: Record<Language, readonly ((x: string, y: string) => string)[]> = {
  en: [
    (x, y) => `${x} with ${withArticle(y)}`,
    (x, y) => `${withArticle(x)} with ${withArticle(y)}`,
    (x, y) => `${x} and ${y}`,
    (x, y) => `${withArticle(x)} and ${withArticle(y)}`,
    (x, y) => `${x} with ${y}`,
    (x, y) => `${x} wearing ${withArticle(y)}`,
    (x, y) => `${x} holding ${withArticle(y)}`,
    (x, y) => `${x} next to ${withArticle(y)}`,
  ],
  zh: [
    (x, y) => `${x}和${y}`,
    (x, y) => `${x}与${y}`,
    (x, y) => `${x}跟${y}`,
    (x, y) => `带${y}的${x}`,
    (x, y) => `戴${y}的${x}`,
    (x, y) => `戴着${y}的${x}`,
    (x, y) => `有${y}的${x}`,
  ],
  "zh-hant": [(x, y) => `${x}和${y}`, (x, y) => `戴${y}的${x}`],
};

/**
 * Captions of the given emoji, which are numbered by their position.
 *
 * @param hexcodes code points as emojibase writes them
 */
export async function openCaptions(hexcodes: readonly string[]): Promise<Captions> {
  const paths = locatePackageFiles(
    languages.map((language) => `emojibase-data/${language}/data.json`),
    "The captions",
  );
  const numbers = new Map(hexcodes.map((hexcode, i) => [hexcode, i]));
  const names: Record<string, Named[]> = {};
  /** For each language, the emoji of each word. */
  const meaning: Record<string, Map<string, Set<number>>> = {};
  for (const [i, language] of languages.entries()) {
    const list = JSON.parse(await readFile(paths[i]!, "utf8")) as {
      hexcode: string;
      label: string;
      tags?: string[];
    }[];
    const own: Named[] = [];
    const words = new Map<string, Set<number>>();
    for (const { hexcode, label, tags = [] } of list) {
      const number = numbers.get(hexcode);
      if (number === undefined) continue;
      const name =
        language === "en"
          ? subjectOf(label)
          : label.replaceAll(/[:：] ?/g, "，").replaceAll("、", "，");
      const others = tags.flatMap((tag) => tag.split(/[，、]/)).filter((tag) => tag.trim() !== "");
      own[number] = { label: name, tags: others };
      for (const word of new Set([name, label, ...others])) {
        const key = word.toLowerCase();
        if (!words.has(key)) words.set(key, new Set());
        words.get(key)!.add(number);
      }
    }
    names[language] = own;
    meaning[language] = words;
  }
  const characters = new Set<string>();
  const collect = (text: string) => {
    for (const character of text) if (character > "\u2e7f") characters.add(character);
  };
  for (const language of ["zh", "zh-hant"] as const) {
    for (const named of names[language]!) {
      if (named) [named.label, ...named.tags].forEach(collect);
    }
    for (const frame of frames[language]) collect(frame(""));
    for (const write of inStyle[language]) collect(write("", ""));
    for (const write of together[language]) collect(write("", ""));
    Object.values(colourWords[language]).flat().forEach(collect);
    Object.values(styleWords[language]).flat().forEach(collect);
    for (const { words } of shapes) words[language].forEach(collect);
  }

  const pick = <T>(u: Draw, from: readonly T[]): T => from[Math.floor(u() * from.length)]!;

  /** Words for one emoji, and all emoji that they can mean. */
  const phrase = (
    u: Draw,
    language: Language,
    number: number,
  ): { text: string; meant: number[] } => {
    const { label, tags } = names[language]![number] ?? names["en"]![number]!;
    const words = meaning[language]!;
    const meantBy = (word: string) => [...(words.get(word.toLowerCase()) ?? [number])];
    const form = u();
    if (form < 0.5 || tags.length === 0) {
      // A label names one emoji, whatever else has it as a tag.
      return { text: label, meant: [number] };
    }
    const tag = pick(u, tags);
    if (form < 0.75) return { text: tag, meant: meantBy(tag) };
    const other = pick(u, tags);
    if (form < 0.87) {
      const shared = meantBy(tag).filter((each) => meantBy(other).includes(each));
      return { text: joined(language, [tag, other]), meant: shared };
    }
    if (form < 0.94) return { text: joined(language, [label, tag]), meant: [number] };
    return { text: joined(language, [tag, label]), meant: [number] };
  };

  const count = hexcodes.length;
  return {
    characters,
    draw(u) {
      const kind = u();
      const language: Language = kind < 0.47 ? "en" : kind < 0.92 ? "zh" : "zh-hant";
      const frame = pick(u, frames[language]);
      const form = u();
      let [text, meant, colour]: [string, readonly number[], number] = ["", [], 0];
      let companions: readonly number[] = [];
      if (form < 0.06) {
        const { words, emoji } = pick(u, shapes);
        const [own, hexcode] = pick(u, Object.entries(emoji)) as [Colour, string];
        const number = numbers.get(hexcode);
        const word = `${pick(u, colourWords[language][own])}${language === "en" ? " " : ""}${pick(u, words[language])}`;
        if (number !== undefined) [text, meant] = [word, [number]];
      }
      if (text === "") {
        const number = Math.floor(u() * count);
        const own = phrase(u, language, number);
        [text, meant] = [own.text, own.meant];
        if (form < 0.24 && !saysColour.test(text)) {
          const chosen = Math.floor(u() * colours.length);
          text = `${pick(u, colourWords[language][colours[chosen]!])}${language === "en" ? " " : ""}${text}`;
          colour = 1 + chosen;
        }
        if (form > 0.86) {
          const other = phrase(u, language, Math.floor(u() * count));
          text = pick(u, together[language])(text, other.text);
          companions = other.meant;
        }
      }
      let style = 0;
      if (u() < 0.3) {
        style = Math.floor(u() * styles.length);
        text = pick(u, inStyle[language])(text, pick(u, styleWords[language][styles[style]!]));
      } else if (!(form > 0.86 && u() < 0.7)) {
        text = frame(text);
      }
      return { text, subjects: meant, style, colour, companions };
    },
  };
}

function joined(language: Language, words: readonly string[]): string {
  return words.join(language === "en" ? ", " : "，");
}
