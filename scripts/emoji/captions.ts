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

/** An emoji that words can mean, and how likely they mean it. */
export interface Meaning {
  readonly index: number;
  readonly share: number;
}

/** What a caption says. */
export interface Caption {
  readonly text: string;
  readonly subjects: readonly Meaning[];
  readonly style: number;
  /** 0 for the subject's own colours, else 1 + the index of the colour. */
  readonly colour: number;
  /** Empty without a companion. */
  readonly companions: readonly Meaning[];
}

/** Numbers in [0, 1), a new one each time. */
export type Draw = () => number;

/** The words for an emoji in one language. */
interface Named {
  readonly label: string;
  readonly tags: readonly string[];
  /** How likely a tag means this emoji rather than others with the same tag. */
  readonly weight: number;
}

export interface Captions {
  draw(u: Draw): Caption;
  /** Every Chinese character and every emoji of the captions. */
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
      en: ["circle", "dot", "disc"],
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
      en: ["square", "block"],
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

/** Everyday words that are the label of no emoji, or of one that they rarely mean, with the emoji that they mean. */
const everyday: readonly (readonly [
  hexcode: string,
  en: readonly string[],
  zh: readonly string[],
])[] = [
  ["1F697", ["car", "auto"], ["车", "小汽车", "轿车"]],
  ["1F333", ["tree", "trees"], ["树", "树木"]],
  ["1F41F", ["fish"], ["鱼"]],
  ["1F426", ["bird"], ["鸟", "小鸟"]],
  ["1F338", ["flower", "blossom"], ["花", "花朵"]],
  ["1F3E0", ["house", "home"], ["房子", "家", "屋子"]],
  ["1F4F1", ["phone", "smartphone", "mobile"], ["手机", "电话"]],
  ["1F4BB", ["computer", "laptop"], ["电脑", "笔记本电脑"]],
  ["1F4FA", ["tv", "television"], ["电视"]],
  ["1F436", ["dog", "puppy", "doggy"], ["狗", "小狗"]],
  ["1F431", ["cat", "kitten", "kitty"], ["猫", "小猫", "猫咪"]],
  ["1F430", ["rabbit", "bunny"], ["兔子", "小兔子"]],
  ["1F434", ["horse", "pony"], ["马"]],
  ["1F437", ["pig", "piggy"], ["猪", "小猪"]],
  ["1F42D", ["mouse"], ["老鼠", "鼠"]],
  ["1F42E", ["cow"], ["牛", "奶牛"]],
  ["1F438", ["frog"], ["青蛙", "蛙"]],
  ["1F43B", ["bear"], ["熊"]],
  ["1F47B", ["ghost", "spirit"], ["鬼", "幽灵"]],
  ["1F3B5", ["music", "song", "melody"], ["音乐", "歌曲"]],
  ["1F600", ["happy", "smile", "smiley", "happy face"], ["高兴", "开心", "笑脸"]],
  ["1F622", ["sad", "cry", "sad face"], ["伤心", "难过", "哭"]],
  ["1F620", ["angry", "mad"], ["生气", "愤怒"]],
  ["2764", ["love"], ["爱"]],
  ["2600", ["sun", "sunny"], ["太阳"]],
  ["1F319", ["moon"], ["月亮"]],
  ["2B50", ["star"], ["星星", "星"]],
  ["2601", ["cloud"], ["云"]],
  ["1F4A7", ["water", "drop"], ["水", "水滴"]],
  ["1F680", ["rocket", "spaceship"], ["火箭", "飞船"]],
  ["2708", ["plane", "airplane", "aeroplane"], ["飞机"]],
  ["1F682", ["train"], ["火车"]],
  ["1F6B2", ["bike", "bicycle"], ["自行车"]],
  ["26F5", ["boat", "sailboat"], ["船", "帆船"]],
  ["1F366", ["ice cream"], ["冰淇淋"]],
  ["1F354", ["burger", "hamburger"], ["汉堡"]],
  ["1F382", ["cake"], ["蛋糕"]],
  ["2615", ["coffee", "cup", "tea"], ["咖啡", "杯子"]],
  ["1F3A9", ["hat"], ["帽子"]],
  ["1F451", ["crown"], ["皇冠", "王冠"]],
  ["1F453", ["glasses"], ["眼镜"]],
  ["1F388", ["balloon"], ["气球"]],
  ["2602", ["umbrella"], ["雨伞", "伞"]],
  ["26BD", ["ball", "football", "soccer"], ["足球", "球"]],
  ["1F4D6", ["book"], ["书"]],
  ["1F34E", ["fruit"], ["水果"]],
  ["26F0", ["mountain"], ["山"]],
  ["1F476", ["baby"], ["宝宝", "婴儿"]],
  ["1F916", ["robot"], ["机器人"]],
  ["1F385", ["santa", "father christmas"], ["圣诞老人"]],
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
  const named: Record<string, Named[]> = {};
  /** For each language, the emoji of each word. */
  const meanings: Record<string, Map<string, Meaning[]>> = {};
  const emoji: string[] = [];
  const characters = new Set<string>();
  const collect = (text: string) => {
    for (const character of text) if (character > "\u2000") characters.add(character);
  };
  for (const [i, language] of languages.entries()) {
    const list = JSON.parse(await readFile(paths[i]!, "utf8")) as Listed[];
    const own: Named[] = [];
    const words = new Map<string, Meaning[]>();
    for (const each of list) {
      const index = numbers.get(each.hexcode);
      if (index === undefined) continue;
      const name = nameOf(each, language);
      own[index] = name;
      emoji[index] = each.emoji;
      collect(each.emoji);
      for (const word of new Set(
        [name.label, each.label, ...name.tags].map((w) => w.toLowerCase()),
      )) {
        const isLabel = word === name.label.toLowerCase();
        const known = words.get(word) ?? [];
        words.set(word, [...known, { index, share: (isLabel ? 8 : 1) * name.weight }]);
      }
    }
    for (const [hexcode, en, zh] of everyday) {
      const index = numbers.get(hexcode);
      if (index === undefined) continue;
      for (const word of language === "en" ? en : zh) words.set(word, [{ index, share: 1 }]);
    }
    for (const { words: shapeWords, emoji: colourful } of shapes) {
      const red = numbers.get(colourful.red!);
      // A shape without a colour is the red one.
      if (red !== undefined)
        shapeWords[language].forEach((word) => words.set(word, [{ index: red, share: 1 }]));
    }
    named[language] = own;
    meanings[language] = words;
  }
  for (const language of ["zh", "zh-hant"] as const) {
    for (const each of named[language]!) if (each) [each.label, ...each.tags].forEach(collect);
    for (const frame of frames[language]) collect(frame(""));
    for (const write of inStyle[language]) collect(write("", ""));
    for (const write of together[language]) collect(write("", ""));
    Object.values(colourWords[language]).flat().forEach(collect);
    Object.values(styleWords[language]).flat().forEach(collect);
    for (const { words } of shapes) words[language].forEach(collect);
  }
  for (const [, , zh] of everyday) zh.forEach(collect);

  const pick = <T>(u: Draw, from: readonly T[]): T => from[Math.floor(u() * from.length)]!;
  const count = hexcodes.length;

  /** Words for one emoji, and what they can mean. */
  const phrase = (u: Draw, language: Language, index: number): Said => {
    const { label, tags } = named[language]![index] ?? named["en"]![index]!;
    const only: readonly Meaning[] = [{ index, share: 1 }];
    const meantBy = (word: string) => meanings[language]!.get(word.toLowerCase()) ?? only;
    const form = u();
    // A label names one emoji, whatever else has it as a tag.
    if (form < 0.5 || tags.length === 0) return { text: label, meant: only };
    const tag = pick(u, tags);
    if (form < 0.75) return { text: tag, meant: meantBy(tag) };
    const other = pick(u, tags);
    if (form < 0.87) {
      const others = new Set(meantBy(other).map((each) => each.index));
      const shared = meantBy(tag).filter((each) => others.has(each.index));
      return { text: joined(language, [tag, other]), meant: shared.length > 0 ? shared : only };
    }
    const both = form < 0.94 ? [label, tag] : [tag, label];
    return { text: joined(language, both), meant: only };
  };

  /** A shape in a colour: the emoji of that colour, or else the red one in another colour; or the red one without a colour. */
  const shape = (u: Draw, language: Language): Said => {
    const { words, emoji: colourful } = pick(u, shapes);
    const word = pick(u, words[language]);
    const red = numbers.get(colourful.red!)!;
    if (u() < 0.1) return { text: word, meant: [{ index: red, share: 1 }] };
    const chosen = Math.floor(u() * colours.length);
    const colour = colours[chosen]!;
    const own = numbers.get(colourful[colour] ?? "");
    return {
      text: coloured(u, language, colour, word),
      meant: [{ index: own ?? red, share: 1 }],
      ...(own === undefined && { colour: 1 + chosen }),
    };
  };

  /** An everyday word, and the emoji that it means. */
  const ordinary = (u: Draw, language: Language): Said => {
    const [hexcode, en, zh] = pick(
      u,
      everyday.filter(([own]) => numbers.has(own)),
    );
    const text = pick(u, language === "en" ? en : zh);
    return { text, meant: [{ index: numbers.get(hexcode)!, share: 1 }] };
  };

  /** Words in a colour, unless they say one themselves or are an emoji of their own in that colour. */
  const recoloured = (u: Draw, language: Language, text: string): readonly [string, number] => {
    const chosen = Math.floor(u() * colours.length);
    const colour = colours[chosen]!;
    const isShape = shapes.some(
      ({ words, emoji: own }) => own[colour] && words[language].includes(text),
    );
    const isOwn = colourWords[language][colour].some((word) =>
      meanings[language]!.has(`${word}${spaceIn(language)}${text}`.toLowerCase()),
    );
    if (saysColour.test(text) || isShape || isOwn) return [text, 0];
    return [coloured(u, language, colour, text), 1 + chosen];
  };

  return {
    characters,
    draw(u) {
      const kind = u();
      const language: Language = kind < 0.47 ? "en" : kind < 0.92 ? "zh" : "zh-hant";
      const form = u();
      if (form < 0.05) {
        const index = Math.floor(u() * count);
        const subjects = [{ index, share: 1 }];
        return { text: emoji[index]!, subjects, style: 0, colour: 0, companions: [] };
      }
      const any = () =>
        u() < 0.1 ? ordinary(u, language) : phrase(u, language, Math.floor(u() * count));
      const said = form < 0.1 ? shape(u, language) : any();
      let { text } = said;
      let { colour = 0 } = said;
      if (form >= 0.1 && form < 0.28) [text, colour] = recoloured(u, language, text);
      const isComposed = form > 0.87;
      let companions: readonly Meaning[] = [];
      if (isComposed) {
        const other = any();
        text = pick(u, together[language])(text, other.text);
        companions = other.meant;
      }
      let style = 0;
      if (u() < 0.3) {
        style = Math.floor(u() * styles.length);
        text = pick(u, inStyle[language])(text, pick(u, styleWords[language][styles[style]!]));
      } else if (!(isComposed && u() < 0.7)) {
        text = pick(u, frames[language])(text);
      }
      return { text, subjects: said.meant, style, colour, companions };
    },
  };
}

interface Said {
  readonly text: string;
  readonly meant: readonly Meaning[];
  /** As in a caption; 0 if left out. */
  readonly colour?: number;
}

/** An emoji in emojibase's lists. */
interface Listed {
  readonly hexcode: string;
  readonly emoji: string;
  readonly label: string;
  readonly tags?: readonly string[];
  readonly version: number;
}

function nameOf({ label, tags = [], version }: Listed, language: Language): Named {
  const name =
    language === "en"
      ? subjectOf(label)
      : label.replaceAll(/[:：] ?/g, "，").replaceAll("、", "，");
  const words = tags.flatMap((tag) => tag.split(/[，、]/)).filter((tag) => tag.trim() !== "");
  // The first emoji are the best known, and one of few tags says more than one of many.
  const weight = (version <= 1 ? 2 : 1) / (4 + words.length);
  return { label: name, tags: words, weight };
}

function spaceIn(language: Language): string {
  return language === "en" ? " " : "";
}

function coloured(u: Draw, language: Language, colour: Colour, text: string): string {
  const words = colourWords[language][colour];
  return `${words[Math.floor(u() * words.length)]!}${spaceIn(language)}${text}`;
}

function joined(language: Language, words: readonly string[]): string {
  return words.join(language === "en" ? ", " : "，");
}
