/**
 * Trains the prompt encoder of the bundled model, and puts it together with the network that `train-decoder.ts` trained:
 *
 *   node scripts/run.mjs scripts/emoji/train-prompts.ts --decoder runs/decoder --out runs/prompts --steps 4000
 *
 * Then `assemble.ts` writes the model. No picture is drawn here: the encoder learns which subject, style, colour and companion a
 * prompt asks for, and two small networks learn how codes change with a colour or a companion, from the codes of such pictures.
 */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type NdArray, ndarray, scalar } from "../../src/engine/arrays/ndarray.ts";
import { concat, input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { fork, randomKey, type RandomKey, uniform } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../../src/engine/runtime/stored-weight.ts";
import { promptEncoder } from "../../src/models/text-encoders/prompt-encoder.ts";
import { changedCode, promptChoices } from "../../src/models/text-encoders/prompt-prior.ts";
import { createParams, initialize, type Params } from "../../src/nn/params.ts";
import { averagesIn } from "../../src/training/loop.ts";
import { adamW, rateAt } from "../../src/training/optimizers.ts";
import { trainingStep } from "../../src/training/step.ts";
import { createTrainer } from "../../src/training/trainer.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { writeFileAtomic } from "../../src/weights/sources/atomic-node.ts";
import { type Caption, type Meaning, openCaptions } from "./captions.ts";
import { type Code, coarse, WIDTH } from "./codes.ts";
import { promptEncoderOf } from "./network.ts";
import {
  colours,
  composed,
  type Drawing,
  drawings,
  recoloured,
  SIDE,
  styles,
  VALUES,
  writeValues,
} from "./pictures.ts";
import { readArrays } from "./stored.ts";
import { vocabularyWith } from "./vocabulary.ts";

const { values: given } = parseArgs({
  options: {
    decoder: { type: "string" },
    out: { type: "string" },
    from: { type: "string" },
    steps: { type: "string", default: "4500" },
    rate: { type: "string", default: "1.5e-3" },
    threads: { type: "string", default: "1" },
  },
});
const [STEPS, THREADS] = [Number(given.steps), Number(given.threads)];
const BATCH = 96;
const out = given.out!;
await mkdir(out, { recursive: true });
const backend = nodeBackend("cpu");
const code = (await readArrays(join(given.decoder!, "code.safetensors"))) as unknown as Code;

const known = (await drawings()).filter(({ heldOut }) => !heldOut);
const hexcodes = [...new Set(known.map(({ hexcode }) => hexcode))];
const captions = await openCaptions(hexcodes);
const vocabulary = await vocabularyWith(captions.characters);
const config = promptEncoderOf(vocabulary.tokenizer.size, hexcodes.length);
// Positions are rotary, so an encoder that was trained on short prompts reads longer ones too.
const TRAINED_LENGTH = 16;
const prior = config.prior!;
console.log(
  `${hexcodes.length} subjects, ${vocabulary.tokenizer.size} pieces, of which ${captions.characters.size} are Chinese characters and emoji`,
);

const codes = await codesOf(known.map(({ rgba }) => rgba));
const weights: Record<string, NdArray> = { "prior.codes": table() };
const changesFile = join(out, "changes.safetensors");
if (!existsSync(changesFile)) {
  await writeSafetensors(changesFile, Object.entries(await trainChanges()), []);
}
Object.assign(weights, await readArrays(changesFile));
Object.assign(weights, await trainChoices());
await writeSafetensors(join(out, "prompt-encoder.safetensors"), Object.entries(weights), []);
await writeFileAtomic(join(out, "tokenizer.json"), vocabulary.file);
await writeFileAtomic(
  join(out, "subjects.json"),
  new TextEncoder().encode(JSON.stringify({ config, hexcodes })),
);

/** Codes of pictures, 256 numbers each. */
async function codesOf(pictures: readonly Uint8Array[]): Promise<Float32Array> {
  const x = input("x", [batch, 3, SIDE, SIDE]);
  const [encode, bias] = [code.encode, code.bias].map((array, i) => {
    const params = createParams();
    return {
      array,
      tensor: params.param(i === 0 ? "encode" : "bias", array.shape, {
        kind: "constant",
        value: 0,
      }),
    };
  }) as [{ array: NdArray; tensor: Tensor }, { array: NdArray; tensor: Tensor }];
  const program = await backend.compile(
    graphOf({ y: coarse(x).linear(encode.tensor, bias.tensor) }),
    {
      weights: arrayWeights({ encode: encode.array, bias: bias.array }),
      threads: THREADS,
    },
  );
  const result = new Float32Array(pictures.length * WIDTH);
  for (let from = 0; from < pictures.length; from += 256) {
    const some = pictures.slice(from, from + 256);
    const values = new Float32Array(some.length * VALUES);
    for (const [i, rgba] of some.entries()) writeValues(rgba, values, i * VALUES);
    const { y } = await program.run({
      x: ndarray("float32", [some.length, 3, SIDE, SIDE], values),
    });
    result.set(y!.data as Float32Array, from * WIDTH);
  }
  await program.dispose();
  return result;
}

/** The codes of every subject in every style; where a style lacks one, that of the first style that has it. */
function table(): NdArray<"float32"> {
  const places = new Map(known.map(({ hexcode, style }, i) => [`${hexcode} ${style}`, i]));
  const values = new Float32Array(hexcodes.length * styles.length * WIDTH);
  for (const [s, hexcode] of hexcodes.entries()) {
    const own = styles.map((style) => places.get(`${hexcode} ${style}`));
    const first = own.find((place) => place !== undefined)!;
    for (const [k, place] of own.entries()) {
      const from = (place ?? first) * WIDTH;
      values.set(codes.subarray(from, from + WIDTH), (s * styles.length + k) * WIDTH);
    }
  }
  return ndarray("float32", [hexcodes.length, styles.length * WIDTH], values);
}

/** Trains the networks that change a code for a colour or a companion, from the codes of pictures so changed. */
async function trainChanges(): Promise<Record<string, NdArray>> {
  const byStyle = styles.map((style) =>
    known.flatMap((each, i) => (each.style === style ? [i] : [])),
  );
  const key = fork(randomKey(2), "changes");
  const pictures: Uint8Array[] = [];
  const changes: { from: number; colour: number; companion: number }[] = [];
  for (const [i, drawing] of known.entries()) {
    for (let c = 0; c < colours.length; c++) {
      if (uniform(fork(fork(key, i), c), [1]).data[0]! > 0.5) continue;
      pictures.push(recoloured(drawing.rgba, colours[c]!));
      changes.push({ from: i, colour: c, companion: -1 });
    }
    const others = byStyle[styles.indexOf(drawing.style)]!;
    const u = uniform(fork(fork(key, i), "companions"), [6]).data;
    for (const value of u) {
      const companion = others[Math.floor(value * others.length)]!;
      pictures.push(composed(drawing.rgba, (known[companion] as Drawing).rgba));
      changes.push({ from: i, colour: -1, companion });
    }
  }
  const targets = await codesOf(pictures);
  console.log(`${changes.length} pictures with another colour or a companion`);
  const [isColour, isCompanion] = [true, false].map((wanted) =>
    changes.flatMap(({ colour }, i) => (colour >= 0 === wanted ? [i] : [])),
  ) as [number[], number[]];
  const params = createParams();
  const scope = params.at("prior");
  const [from, to] = [input("from", [batch, WIDTH]), input("to", [batch, WIDTH])];
  const [from2, to2] = [input("from2", [batch, WIDTH]), input("to2", [batch, WIDTH])];
  const colour = input("colour", [batch, colours.length]);
  const added = input("added", [batch, WIDTH]);
  // Components count by their variance in pictures, of which the code has the square root taken out.
  const scale = Float32Array.from({ length: WIDTH }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < code.mean.data.length; k++) sum += code.decode.data[k * WIDTH + i]! ** 2;
    return Math.sqrt(sum);
  });
  const spread = input("scale", [WIDTH]);
  const error = (one: Tensor, other: Tensor) => one.sub(other).mul(spread).square().sum(1).mean();
  const lossColour = error(changedCode(scope.at("recolour"), from, colour, prior.hidden), to);
  const lossCompanion = error(changedCode(scope.at("compose"), from2, added, prior.hidden), to2);
  const step = trainingStep({
    loss: lossColour.add(lossCompanion),
    params: Object.fromEntries([...params.declared].map(([name, { tensor }]) => [name, tensor])),
    optimizer: adamW({ learningRate: input("rate", []), beta2: 0.99, weightDecay: 0.01 }),
    emaDecay: (count) => count.add(1).div(count.add(10)).minimum(0.998),
  });
  const trainer = await createTrainer(backend, step, initialize(params, randomKey(3)), {
    threads: THREADS,
  });
  const rows = (indices: readonly number[], of: (index: number) => Float32Array) => {
    const values = new Float32Array(indices.length * WIDTH);
    for (const [i, index] of indices.entries()) values.set(of(index), i * WIDTH);
    return ndarray("float32", [indices.length, WIDTH], values);
  };
  const codeAt = (index: number) => codes.subarray(index * WIDTH, (index + 1) * WIDTH);
  const targetAt = (index: number) => targets.subarray(index * WIDTH, (index + 1) * WIDTH);
  const total = 5000;
  let mean = 0;
  for (let s = 1; s <= total; s++) {
    const u = uniform(fork(fork(randomKey(4), "batch"), s), [2, 256]).data;
    const some = Array.from(
      { length: 256 },
      (_, i) => isColour[Math.floor(u[i]! * isColour.length)]!,
    );
    const others = Array.from(
      { length: 256 },
      (_, i) => isCompanion[Math.floor(u[256 + i]! * isCompanion.length)]!,
    );
    const shown = new Float32Array(256 * colours.length);
    for (const [i, index] of some.entries()) shown[i * colours.length + changes[index]!.colour] = 1;
    const { loss } = await trainer.step({
      from: rows(some, (index) => codeAt(changes[index]!.from)),
      to: rows(some, targetAt),
      colour: ndarray("float32", [256, colours.length], shown),
      from2: rows(others, (index) => codeAt(changes[index]!.from)),
      added: rows(others, (index) => codeAt(changes[index]!.companion)),
      to2: rows(others, targetAt),
      scale: ndarray("float32", [WIDTH], scale),
      rate: scalar(
        rateAt(
          { rate: 1e-3, warmUp: 100, decay: { kind: "cosine", over: 0.7, to: 0.02 } },
          s,
          s / total,
        ),
      ),
    });
    mean = s === 1 ? loss : 0.98 * mean + 0.02 * loss;
    if (s % 500 === 0 || s === 1)
      console.log(`changes: step ${s}, squared error ${mean.toFixed(1)}`);
  }
  const averages = averagesIn(await trainer.readState());
  await trainer.dispose();
  return averages;
}

/** Trains the encoder to choose. */
async function trainChoices(): Promise<Record<string, NdArray>> {
  const params = createParams();
  const [ids, mask] = [
    input("ids", [batch, TRAINED_LENGTH], "int64"),
    input("mask", [batch, TRAINED_LENGTH], "bool"),
  ];
  // Pretrained word vectors stay as they are, so that words which no caption has are still read by their likeness to others.
  const { pretrained } = vocabulary;
  const [size, wordWidth] = vocabulary.vectors.shape as [number, number];
  const fixed = createParams().param("pretrained", [pretrained, wordWidth], {
    kind: "constant",
    value: 0,
  });
  const added = params.param("added", [size - pretrained, wordWidth], { kind: "normal", std: 1 });
  const view: Params = {
    ...params,
    param: (name, shape, init) =>
      name === "words" ? concat([fixed, added], 0) : params.param(name, shape, init),
  };
  const vectors = ndarray(
    "float32",
    [pretrained, wordWidth],
    vocabulary.vectors.data.subarray(0, pretrained * wordWidth),
  );
  const tokens = promptEncoder(view, ids, mask, { ...config, length: TRAINED_LENGTH });
  const choices = promptChoices(params.at("prior"), tokens, mask, prior);
  const targets = {
    subject: input("subject", [batch, prior.subjects]),
    style: input("style", [batch, prior.styles]),
    colour: input("colour", [batch, 1 + prior.colours]),
    companion: input("companion", [batch, 1 + prior.subjects]),
  };
  const losses = Object.entries(targets).map(([name, target]) =>
    choices[name as keyof typeof targets]!.logSoftmax(-1).mul(target).sum(1).neg().mean(),
  );
  const step = trainingStep({
    loss: losses[0]!.add(losses[1]!).add(losses[2]!).add(losses[3]!),
    params: Object.fromEntries([...params.declared].map(([name, { tensor }]) => [name, tensor])),
    optimizer: adamW({ learningRate: input("rate", []), beta2: 0.99, weightDecay: 0.02 }),
    emaDecay: (count) => count.add(1).div(count.add(10)).minimum(0.998),
    clip: 1,
  });
  const first = {
    ...initialize(params, randomKey(5)),
    ...(given.from && (await earlier(given.from))),
  };
  const trainer = await createTrainer(backend, step, first, {
    threads: THREADS,
    weights: arrayWeights({ pretrained: vectors }),
  });
  const read = await backend.compile(graphOf({ ...choices }), {
    threads: THREADS,
    weights: arrayWeights({ pretrained: vectors }),
  });
  let mean = 0;
  const began = performance.now();
  for (let s = 1; s <= STEPS; s++) {
    const drawn = captionBatch(fork(fork(randomKey(6), "captions"), s));
    const rate = rateAt(
      { rate: Number(given.rate), warmUp: 200, decay: { kind: "cosine", over: 0.8, to: 0.02 } },
      s,
      s / STEPS,
    );
    const { loss } = await trainer.step({
      ...inputsOf(drawn),
      ...targetsOf(drawn),
      rate: scalar(rate),
    });
    mean = s === 1 ? loss : 0.98 * mean + 0.02 * loss;
    if (s % 50 === 0) {
      console.log(
        `prompts: step ${s}, loss ${mean.toFixed(3)}, ${((performance.now() - began) / 60000).toFixed(1)} min`,
      );
    }
    if (s % 1000 === 0 || s === STEPS) await measure(s);
  }
  const { added: rows, ...averages } = averagesIn(await trainer.readState());
  await read.dispose();
  await trainer.dispose();
  const words = new Float32Array(size * wordWidth);
  words.set(vectors.data);
  words.set(rows!.data as Float32Array, pretrained * wordWidth);
  return { ...averages, words: ndarray("float32", [size, wordWidth], words) };

  /** The weights of an earlier training, from its folder. */
  async function earlier(folder: string): Promise<Record<string, NdArray>> {
    const stored = await readArrays(join(folder, "prompt-encoder.safetensors"));
    const rest = stored["words"]!.data.slice(pretrained * wordWidth);
    return {
      ...Object.fromEntries(Object.entries(stored).filter(([name]) => params.declared.has(name))),
      added: ndarray("float32", [size - pretrained, wordWidth], rest),
    };
  }

  /** The share of new captions whose choices are all right. */
  async function measure(at: number): Promise<void> {
    const now = averagesIn(await trainer.readState());
    const right = { subject: 0, style: 0, colour: 0, companion: 0 };
    for (let i = 0; i < 4; i++) {
      const drawn = captionBatch(fork(fork(randomKey(7), "measure"), i));
      const found = await read.run({ ...inputsOf(drawn), ...now });
      for (const [name, of] of [
        ["subject", (each: Caption) => each.subjects.map(({ index }) => index)],
        ["style", (each: Caption) => [each.style]],
        ["colour", (each: Caption) => [each.colour]],
        [
          "companion",
          (each: Caption) =>
            each.companions.length === 0 ? [0] : each.companions.map(({ index }) => 1 + index),
        ],
      ] as const) {
        const logits = found[name]!;
        const width = logits.shape[1]!;
        for (const [row, each] of drawn.entries()) {
          const own = (logits.data as Float32Array).subarray(row * width, (row + 1) * width);
          let best = 0;
          for (let k = 1; k < width; k++) if (own[k]! > own[best]!) best = k;
          if (of(each).includes(best)) right[name]++;
        }
      }
    }
    const shares = Object.entries(right).map(
      ([name, n]) => `${name} ${((100 * n) / (4 * BATCH)).toFixed(1)} %`,
    );
    console.log(`prompts: step ${at}, right: ${shares.join(", ")}`);
  }
}

function captionBatch(key: RandomKey): Caption[] {
  const u = uniform(key, [BATCH, 32]).data;
  return Array.from({ length: BATCH }, (_, i) => {
    let next = 32 * i;
    return captions.draw(() => u[next++]!);
  });
}

function inputsOf(drawn: readonly Caption[]): Record<string, NdArray> {
  const ids = new BigInt64Array(drawn.length * TRAINED_LENGTH);
  const mask = new Uint8Array(drawn.length * TRAINED_LENGTH);
  for (const [i, { text }] of drawn.entries()) {
    const encoded = vocabulary.tokenizer.encode(text, TRAINED_LENGTH);
    ids.set(BigInt64Array.from(encoded.ids, BigInt), i * TRAINED_LENGTH);
    mask.set(encoded.mask, i * TRAINED_LENGTH);
  }
  const shape = [drawn.length, TRAINED_LENGTH];
  return { ids: ndarray("int64", shape, ids), mask: ndarray("bool", shape, mask) };
}

function targetsOf(drawn: readonly Caption[]): Record<string, NdArray> {
  const shares = (width: number, of: (each: Caption) => readonly Meaning[]) => {
    const values = new Float32Array(drawn.length * width);
    for (const [i, each] of drawn.entries()) {
      const right = of(each);
      const sum = right.reduce((all, { share }) => all + share, 0);
      for (const { index, share } of right) values[i * width + index]! += share / sum;
    }
    return ndarray("float32", [drawn.length, width], values);
  };
  return {
    subject: shares(prior.subjects, (each) => each.subjects),
    style: shares(prior.styles, ({ style }) => [{ index: style, share: 1 }]),
    colour: shares(1 + prior.colours, ({ colour }) => [{ index: colour, share: 1 }]),
    companion: shares(1 + prior.subjects, ({ companions }) =>
      companions.length === 0
        ? [{ index: 0, share: 1 }]
        : companions.map(({ index, share }) => ({ index: 1 + index, share })),
    ),
  };
}
