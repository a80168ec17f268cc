/**
 * Trains the prompt encoder of the bundled model of clips:
 *
 *   node scripts/run.mjs scripts/motion/train-prompts.ts --out runs/motion-prompts
 *
 * It begins with that of the bundled model of still pictures, keeps the codes of the first style, leaves companions out, and learns
 * which motion a prompt asks for. Then `assemble.ts` writes the model.
 */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type NdArray, ndarray, scalar } from "../../src/engine/arrays/ndarray.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { fork, randomKey, type RandomKey, uniform } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../../src/engine/runtime/stored-weight.ts";
import { promptEncoder } from "../../src/models/text-encoders/prompt-encoder.ts";
import { promptChoices } from "../../src/models/text-encoders/prompt-prior.ts";
import { type MotionName, motionNames } from "../../src/data/motions.ts";
import { createParams, initialize } from "../../src/nn/params.ts";
import { loadTokenizer } from "../../src/text/tokenizer.ts";
import { averagesIn } from "../../src/training/loop.ts";
import { adamW, rateAt } from "../../src/training/optimizers.ts";
import { trainingStep } from "../../src/training/step.ts";
import { createTrainer } from "../../src/training/trainer.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { writeFileAtomic } from "../../src/weights/sources/atomic-node.ts";
import { type Caption, type Meaning, openCaptions } from "../emoji/captions.ts";
import { WIDTH } from "../emoji/codes.ts";
import { drawings, styles } from "../emoji/pictures.ts";
import { readArrays } from "../emoji/stored.ts";
import { promptEncoderOf } from "./network.ts";
import { withMotion } from "./words.ts";

const { values: given } = parseArgs({
  options: {
    out: { type: "string" },
    stills: { type: "string", default: "models/emoji" },
    steps: { type: "string", default: "500" },
    rate: { type: "string", default: "4e-4" },
    threads: { type: "string", default: "1" },
  },
});
const [STEPS, THREADS] = [Number(given.steps), Number(given.threads)];
const BATCH = 96;
/** Positions are rotary, so an encoder that is trained on short prompts reads longer ones too. */
const LENGTH = 16;
const out = given.out!;
await mkdir(out, { recursive: true });
const backend = nodeBackend("cpu");

const hexcodes = [
  ...new Set((await drawings()).flatMap((each) => (each.heldOut ? [] : [each.hexcode]))),
];
const captions = await openCaptions(hexcodes);
const tokenizerFile = await readFile(join(given.stills, "tokenizer.json"));
const tokenizer = loadTokenizer(JSON.parse(tokenizerFile.toString()) as object);
const config = promptEncoderOf(tokenizer.size, hexcodes.length);
const prior = config.prior!;
const SCOPE = "prompt_encoder.";
const stored = Object.fromEntries(
  Object.entries(await readArrays(join(given.stills, "model.safetensors"))).flatMap(
    ([name, array]) => (name.startsWith(SCOPE) ? [[name.slice(SCOPE.length), array]] : []),
  ),
);

const { params, choices, loss } = traced();
const fixed = { words: stored["words"]! };
const step = trainingStep({
  loss,
  params: Object.fromEntries(
    [...params.declared].flatMap(([name, { tensor }]) => (name in fixed ? [] : [[name, tensor]])),
  ),
  optimizer: adamW({ learningRate: input("rate", []), beta2: 0.99, weightDecay: 0.02 }),
  emaDecay: (count) => count.add(1).div(count.add(10)).minimum(0.99),
  clip: 1,
});
const { words: _, ...first } = { ...initialize(params, randomKey(5)) };
for (const name of Object.keys(first)) {
  const known = stored[name];
  if (known && known.shape.join() === first[name]!.shape.join()) first[name] = known;
}
const options = { threads: THREADS, weights: arrayWeights(fixed) };
const trainer = await createTrainer(backend, step, first, options);
let mean = 0;
for (let s = 1; s <= STEPS; s++) {
  const drawn = captionBatch(fork(fork(randomKey(6), "captions"), s));
  const decay = { kind: "cosine", over: 0.8, to: 0.02 } as const;
  const rate = rateAt({ rate: Number(given.rate), warmUp: 50, decay }, s, s / STEPS);
  const { loss: value } = await trainer.step({
    ...inputsOf(drawn),
    ...targetsOf(drawn),
    rate: scalar(rate),
  });
  mean = s === 1 ? value : 0.95 * mean + 0.05 * value;
  if (s % 25 === 0) console.log(`prompts: step ${s}, loss ${mean.toFixed(3)}`);
}
const averages = averagesIn(await trainer.readState());
await trainer.dispose();
await measure();
const changes = Object.entries(stored).filter(([name]) => name.startsWith("prior.recolour."));
await writeSafetensors(
  join(out, "prompt-encoder.safetensors"),
  [...Object.entries({ ...averages, ...fixed, "prior.codes": codesOfFirstStyle() }), ...changes],
  [],
);
await writeFileAtomic(join(out, "tokenizer.json"), new Uint8Array(tokenizerFile));
await writeFileAtomic(
  join(out, "subjects.json"),
  new TextEncoder().encode(JSON.stringify({ config, hexcodes })),
);

function traced() {
  const own = createParams();
  const [ids, mask] = [
    input("ids", [batch, LENGTH], "int64"),
    input("mask", [batch, LENGTH], "bool"),
  ];
  const tokens = promptEncoder(own, ids, mask, { ...config, length: LENGTH });
  const read = promptChoices(own.at("prior"), tokens, mask, prior);
  const losses = (["subject", "colour", "motion"] as const).map((name) => {
    const logits = read[name]!;
    const target = input(name, [batch, logits.size(1)]);
    return logits.logSoftmax(-1).mul(target).sum(1).neg().mean();
  });
  const [subject, colour, motion] = losses as [
    (typeof losses)[0],
    (typeof losses)[0],
    (typeof losses)[0],
  ];
  // With one style there is nothing to choose, but its head is among the weights.
  return {
    params: own,
    choices: { subject: read.subject, colour: read.colour, motion: read.motion! },
    loss: subject.add(colour).add(motion).add(read.style.mul(0).mean()),
  };
}

/** The codes of the first style, [subjects, code]. */
function codesOfFirstStyle(): NdArray<"float32"> {
  const table = stored["prior.codes"]!;
  const values = new Float32Array(prior.subjects * WIDTH);
  for (let row = 0; row < prior.subjects; row++) {
    const from = row * styles.length * WIDTH;
    values.set(table.data.subarray(from, from + WIDTH), row * WIDTH);
  }
  return ndarray("float32", [prior.subjects, WIDTH], values);
}

interface MovingCaption extends Caption {
  readonly motion: MotionName;
}

/** Captions in the first style, of one thing each, with a motion. */
function captionBatch(key: RandomKey): MovingCaption[] {
  const u = uniform(key, [BATCH * 256]).data;
  let next = 0;
  const draw = () => u[next++ % u.length]!;
  return Array.from({ length: BATCH }, () => {
    let caption = captions.draw(draw);
    while (caption.style !== 0 || caption.companions.length > 0) caption = captions.draw(draw);
    const motion = motionNames[Math.floor(draw() * motionNames.length)]!;
    return { ...caption, motion, text: withMotion(caption.text, motion, draw) };
  });
}

function inputsOf(drawn: readonly Caption[]): Record<string, NdArray> {
  const encoded = drawn.map(({ text }) => tokenizer.encode(text, LENGTH));
  const shape = [drawn.length, LENGTH];
  return {
    ids: ndarray(
      "int64",
      shape,
      encoded.flatMap(({ ids }) => [...ids]),
    ),
    mask: ndarray(
      "bool",
      shape,
      encoded.flatMap(({ mask }) => [...mask].map(Number)),
    ),
  };
}

function targetsOf(drawn: readonly MovingCaption[]): Record<string, NdArray> {
  const shares = (width: number, of: (each: MovingCaption) => readonly Meaning[]) => {
    const values = new Float32Array(drawn.length * width);
    for (const [i, each] of drawn.entries()) {
      const right = of(each);
      const sum = right.reduce((all, { share }) => all + share, 0);
      for (const { index, share } of right) values[i * width + index]! += share / sum;
    }
    return ndarray("float32", [drawn.length, width], values);
  };
  return {
    subject: shares(prior.subjects, ({ subjects }) => subjects),
    colour: shares(1 + prior.colours, ({ colour }) => [{ index: colour, share: 1 }]),
    motion: shares(motionNames.length, ({ motion }) => [
      { index: motionNames.indexOf(motion), share: 1 },
    ]),
  };
}

/** Prints the shares of new captions whose choices are right. */
async function measure(): Promise<void> {
  const program = await backend.compile(graphOf(choices), {
    threads: THREADS,
    weights: arrayWeights({ ...fixed, ...averages }),
  });
  const right = { subject: 0, colour: 0, motion: 0 };
  const rounds = 4;
  for (let i = 0; i < rounds; i++) {
    const drawn = captionBatch(fork(fork(randomKey(7), "measure"), i));
    const found = await program.run(inputsOf(drawn));
    const targets = targetsOf(drawn);
    for (const name of ["subject", "colour", "motion"] as const) {
      const width = found[name]!.shape[1]!;
      for (let row = 0; row < drawn.length; row++) {
        const logits = (found[name]!.data as Float32Array).subarray(row * width, (row + 1) * width);
        const best = logits.indexOf(Math.max(...logits));
        if (Number(targets[name]!.data[row * width + best]) > 0) right[name]++;
      }
    }
  }
  await program.dispose();
  const shares = Object.entries(right).map(
    ([name, n]) => `${name} ${((100 * n) / (rounds * BATCH)).toFixed(1)} %`,
  );
  console.log(`prompts: right: ${shares.join(", ")}`);
}
