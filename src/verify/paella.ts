/**
 * Paella in its versions 3 and 1: `out.logits…` for `in.x` at `in.r` under several conditions, `out.add_noise_*` with
 * `in.noise_u` and `in.random_x`, `out.train_loss` with gradients of its mean, and the codes after each step of sampling from
 * `in.init` with the random numbers in `in.u_*`.
 */
import { mapElements, rowsOf } from "../diffusion/arrays.ts";
import {
  cosineLevels,
  cosineShare,
  evenLevels,
  guidedTokens,
  isNoise,
  noiseTokens,
  type TokenDenoiser,
  tokenLoss,
} from "../diffusion/discrete/discrete.ts";
import {
  pickByShare,
  sampleTokens,
  type TokenDraws,
  type TokenSampling,
} from "../diffusion/discrete/token-sampling.ts";
import { input } from "../engine/graph/functional.ts";
import { graphOf, leafName } from "../engine/graph/graph.ts";
import { castArray, type NdArray, ndarray, toNumbers, zeros } from "../engine/arrays/ndarray.ts";
import { batch } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { paella as model, paellaConfig } from "../models/paella/paella.ts";
import { paellaV1 as modelV1, paellaV1Config } from "../models/paella/paella-v1.ts";
import { createParams, type ParamsRoot } from "../nn/params.ts";
import { checkedWeights } from "../weights/check-keys.ts";
import type { FieldReader } from "../weights/config-fields.ts";
import type { Weights } from "../weights/safetensors/safetensors.ts";
import type { BackendSource, Computed, Family } from "./family.ts";
import {
  computeNetwork,
  recordedFields,
  recordedInput,
  recordedModel,
  requiredInput,
} from "./network.ts";
import type { Recording } from "./recording.ts";
import { stacked } from "./scheduler-run.ts";

export const paella: Family = async function* compute(recording, backend) {
  const { io } = recording;
  const config = paellaConfig(recordedModel(recording).args);
  const params = createParams();
  const ask: Asked = (tokens, share, { byt5, clip, clip_image }) =>
    model(params, { tokens, share, text: byt5!, clipText: clip, clipImage: clip_image }, config);
  const [x, r] = [requiredInput(recording, "x"), requiredInput(recording, "r")];
  const byt5 = requiredInput(recording, "byt5");
  const [clip, clip_image] = ["clip", "clip_image"].map((name) => recordedInput(io, name));
  const conditions = { byt5, clip, clip_image };
  const noised = noisedTokens(recording, x, r);
  const losses = tokenLoss(ask(noised.tokens, r, conditions), x);
  yield* computeNetwork(recording, backend, {
    params,
    outputs: {
      "out.logits": ask(x, r, conditions),
      "out.logits_byt5_only": ask(x, r, { byt5 }),
      ...noised.outputs,
      "out.train_loss": losses,
    },
    loss: losses.mean(),
  });

  if (!io.entries.has("out.sample")) return;
  const settings = recordedFields(recording).object("sampling");
  const steps = settings.count("steps", 12);
  const numbers = await drawnNumbers(io, "in.u_multinomial");
  const recordedConditions = async (prefix: string): Promise<Conditions> => {
    const names = ["byt5", "clip", "clip_image"].filter((name) => io.entries.has(prefix + name));
    return Promise.all(names.map(async (name) => [name, await io.read(prefix + name)] as const));
  };
  const scale = settings.number("cfg", 0);
  yield* sampled(recording, backend, {
    params,
    ask,
    wanted: await recordedConditions("in."),
    // In the original, scale 0 means no guidance.
    guidance: scale === 0 ? undefined : { scale, free: await recordedConditions("in.uncond_") },
    sampling: {
      codebook: config.codebook,
      levels: evenLevels(steps, settings.number("t_start", 1), settings.number("t_end", 0)),
      renoiseSteps: settings.number("renoise_steps", 11),
      temperature: temperaturesOf(settings, "temperature", [1, 0.2]),
    },
    pick: (step, row, logits) => pickByShare(logits, numbers.at(step, row)),
  });
};

export const paellaV1: Family = async function* compute(recording, backend) {
  const { io } = recording;
  const config = paellaV1Config(recordedModel(recording).args);
  const params = createParams();
  const ask: Asked = (tokens, share, { c }) => modelV1(params, { tokens, share, clip: c! }, config);
  const [x, c] = [requiredInput(recording, "x"), requiredInput(recording, "c")];
  // Our network takes the noise ratio itself.
  const shares = mapElements(cosineShare, await io.read("in.r"));
  const share = input("in.share", [batch]);
  const withShare = {
    ...recording,
    io: { ...io, read: async (name: string) => (name === "in.share" ? shares : io.read(name)) },
  };
  const noised = noisedTokens(recording, x, share);
  const loss = tokenLoss(ask(noised.tokens, share, { c }), x).mean();
  const map = recordedInput(io, "c_map");
  yield* computeNetwork(withShare, backend, {
    params,
    outputs: {
      "out.logits": ask(x, share, { c }),
      ...(map && { "out.logits_c_map": ask(x, share, { c: map }) }),
      "out.gamma": share,
      ...noised.outputs,
      "out.train_loss": loss,
    },
    loss,
  });

  if (!io.entries.has("out.sample")) return;
  const settings = recordedFields(recording).object("sampling");
  const numbers = await drawnNumbers(io, "in.u_gumbel");
  const wanted = await io.read("in.c");
  const scale = settings.number("classifier_free_scale", -1);
  const mode = settings.choice("renoise_mode", ["start", "prev"], "start");
  const typical = {
    mass: settings.number("typical_mass", 0.2),
    least: settings.number("typical_min_tokens", 1),
  };
  yield* sampled(recording, backend, {
    params,
    ask,
    wanted: [["c", wanted]],
    guidance: scale < 0 ? undefined : { scale, free: [["c", zeros("float32", wanted.shape)]] },
    sampling: {
      codebook: config.codebook,
      levels: cosineLevels(settings.count("T", 12)),
      renoiseSteps: settings.number("renoise_steps", 11),
      renoiseWith: mode === "prev" ? "previous" : mode,
      temperature: temperaturesOf(settings, "temp_range", [1, 1]),
      typical: settings.flag("typical_filtering", true) ? typical : undefined,
    },
    // The Gumbel-max trick: the argmax of logits with Gumbel noise is a sample from their softmax.
    pick: (step, row, logits) => {
      const noisy = logits.map(
        (value, k) => value - log(-log(numbers.at(step, row * logits.length + k))),
      );
      return noisy.indexOf(noisy.reduce((a, b) => Math.max(a, b)));
    },
  });
};

/** The logarithm that the original uses, which is finite at 0. */
const log = (value: number) => Math.log(value + 1e-20);

/** Computes the logits of codes with a noise ratio, under conditions by their recorded names. */
type Asked = (
  tokens: Tensor,
  share: Tensor,
  conditions: Readonly<Record<string, Tensor | undefined>>,
) => Tensor;

/** Arrays by their recorded names, with at least one row for each image. */
type Conditions = readonly (readonly [name: string, array: NdArray])[];

function noisedTokens(recording: Recording, tokens: Tensor, share: Tensor) {
  const noise = isNoise(requiredInput(recording, "noise_u"), share);
  const noised = noiseTokens(tokens, requiredInput(recording, "random_x"), noise);
  const outputs = { "out.add_noise_x": noised, "out.add_noise_mask": noise.cast("int64") };
  return { tokens: noised, outputs };
}

function temperaturesOf(
  settings: FieldReader,
  name: string,
  otherwise: readonly [number, number],
): readonly [number, number] {
  const [first = 1, last = first] = settings.numbers(name, otherwise);
  return [first, last];
}

interface SamplingRun {
  readonly params: ParamsRoot;
  readonly ask: Asked;
  readonly wanted: Conditions;
  readonly guidance: { readonly scale: number; readonly free: Conditions } | undefined;
  readonly sampling: TokenSampling;
  readonly pick: TokenDraws["pick"];
}

async function* sampled(
  recording: Recording,
  backend: BackendSource,
  { guidance, sampling, pick, ...run }: SamplingRun,
): AsyncGenerator<Computed> {
  const { io } = recording;
  const start = castArray(await io.read("in.init"), "int64");
  const noise = await drawnNumbers(io, "in.u_renoise");
  const places = start.data.length;
  const uniforms = (step: number | "start") =>
    Array.from({ length: places }, (_, place) => noise.at(Number(step), place));
  const asked = guidance ? [run.wanted, guidance.free] : [run.wanted];
  const programs = await Promise.all(
    asked.map((conditions) => compiled(recording, backend, run, start, conditions)),
  );
  const [given, drawn]: [NdArray[], NdArray[]] = [[], []];
  let tokens: NdArray = start;
  try {
    const [wanted, free = wanted] = programs.map(({ denoise }) => denoise);
    const denoise = guidedTokens(wanted!, free!, guidance?.scale ?? 1);
    for await (const step of sampleTokens(denoise, start, sampling, { pick, uniforms })) {
      given.push(step.given);
      drawn.push(step.drawn);
      tokens = step.tokens;
    }
  } finally {
    await Promise.all(programs.map(({ dispose }) => dispose()));
  }
  const results = { sample: tokens, sample_x_in: stacked(given), sample_drawn: stacked(drawn) };
  for (const [name, got] of Object.entries(results)) {
    const wantedTokens = await io.read(`out.${name}`);
    yield { name: `out.${name}`, got: castArray(got, "int64"), want: wantedTokens };
  }
}

/** A program for the logits of codes like `start` under conditions, whose shapes may differ from those recorded with `in.x`. */
async function compiled(
  recording: Recording,
  backend: BackendSource,
  { params, ask }: Pick<SamplingRun, "params" | "ask">,
  start: NdArray,
  conditions: Conditions,
) {
  const rows = start.shape[0]!;
  const leaf = (name: string, { shape, dtype }: NdArray) =>
    input(name, [batch, ...shape.slice(1)], dtype);
  const share = (value: number) => ndarray("float32", [rows], new Array<number>(rows).fill(value));
  const leaves = conditions.map(([name, array]) => [name, leaf(name, array)] as const);
  const logits = ask(leaf("x", start), leaf("share", share(0)), Object.fromEntries(leaves));
  const weights = checkedWeights(params, recordedModel(recording).weights);
  const graph = graphOf({ logits });
  const program = await (await backend()).compile(graph, { weights });
  const fixed = conditions.map(([name, array]) => [name, rowsOf(array, 0, rows)] as const);
  // A network may have no part that takes the noise ratio or the conditions.
  const asked = new Set(graph.inputs.map(leafName));
  const denoise: TokenDenoiser = async (x, noise) => {
    const inputs = [...fixed, ["x", x] as const, ["share", share(noise)] as const];
    const taken = inputs.filter(([name]) => asked.has(name));
    return (await program.run(Object.fromEntries(taken)))["logits"]!;
  };
  return { denoise, dispose: () => program.dispose() };
}

/** The recorded random numbers of each step. */
async function drawnNumbers(io: Weights, name: string) {
  const array = await io.read(name);
  const values = toNumbers(array);
  const each = values.length / array.shape[0]!;
  return { at: (step: number, i: number): number => values[step * each + i]! };
}
