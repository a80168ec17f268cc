/** Tokenizers of Stable Diffusion 3 with a small vocabulary: the bytes and a few words. */

const words = [
  ..."a the of on in and with red blue green black white small big".split(" "),
  ..."cat dog bird tree house moon photo painting".split(" "),
];

const START = "<|startoftext|>";
const END = "<|endoftext|>";

/** The files of a CLIP tokenizer's folder by their names. */
export function clipTokenizerFiles(padding: "end" | "!"): Record<string, string> {
  const units = [...byteUnits()];
  const { pieces, merges } = mergedWords();
  const vocabulary = [...units, ...units.map((unit) => `${unit}</w>`), ...pieces, START, END];
  const pad = padding === "end" ? END : "!";
  return {
    "vocab.json": JSON.stringify(Object.fromEntries(vocabulary.map((piece, id) => [piece, id]))),
    "merges.txt": `#version: 0.2\n${merges.join("\n")}\n`,
    "special_tokens_map.json": JSON.stringify({
      bos_token: START,
      eos_token: END,
      pad_token: pad,
      unk_token: END,
    }),
    "tokenizer_config.json": JSON.stringify({
      tokenizer_class: "CLIPTokenizer",
      bos_token: START,
      eos_token: END,
      pad_token: pad,
      unk_token: END,
      model_max_length: 77,
    }),
  };
}

/** The units in the order in which GPT-2 and CLIP number the bytes, beginning with "!". */
function* byteUnits(): Generator<string> {
  const shown: number[] = [];
  for (const [first, last] of [
    ["!", "~"],
    ["¡", "¬"],
    ["®", "ÿ"],
  ] as const) {
    for (let code = first.charCodeAt(0); code <= last.charCodeAt(0); code++) shown.push(code);
  }
  for (const code of shown) yield String.fromCharCode(code);
  for (let i = 0; i < 256 - shown.length; i++) yield String.fromCharCode(256 + i);
}

/** Merges each word from the left. */
function mergedWords(): { pieces: string[]; merges: string[] } {
  const pieces = new Set<string>();
  const merges = new Set<string>();
  for (const word of words) {
    const letters = Array.from(word);
    letters.push(`${letters.pop()}</w>`);
    let piece = letters[0]!;
    for (const letter of letters.slice(1)) {
      merges.add(`${piece} ${letter}`);
      piece += letter;
      pieces.add(piece);
    }
  }
  return { pieces: [...pieces], merges: [...merges] };
}

/** The files of T5's tokenizer folder by their names. */
export function t5TokenizerFiles(): Record<string, string> {
  const special = ["<pad>", "</s>", "<unk>"];
  const pieces = [
    ...words.map((word) => `▁${word}`),
    "▁",
    ...Array.from("abcdefghijklmnopqrstuvwxyz.,!"),
  ];
  const vocab = [
    ...special.map((piece) => [piece, 0]),
    ...pieces.map((piece, i) => [piece, -1 - (i < words.length ? 1 : 8)]),
  ];
  const added = special.map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  const metaspace = { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true };
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: { type: "Lowercase" },
    pre_tokenizer: metaspace,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "</s>", type_id: 0 } }],
      pair: [
        { Sequence: { id: "A", type_id: 0 } },
        { SpecialToken: { id: "</s>", type_id: 0 } },
        { Sequence: { id: "B", type_id: 0 } },
        { SpecialToken: { id: "</s>", type_id: 0 } },
      ],
      special_tokens: { "</s>": { id: "</s>", ids: [1], tokens: ["</s>"] } },
    },
    decoder: metaspace,
    model: { type: "Unigram", unk_id: 2, vocab, byte_fallback: false },
  };
  return {
    "tokenizer.json": JSON.stringify(tokenizer),
    "tokenizer_config.json": JSON.stringify({
      tokenizer_class: "T5Tokenizer",
      pad_token: "<pad>",
      eos_token: "</s>",
      unk_token: "<unk>",
      model_max_length: 512,
    }),
  };
}
