/**
 * Paella, the third version and the first: `out.logits…` of `in.x` at `in.r` under their conditions, `out.add_noise_*` by
 * `in.noise_u` and `in.random_x`, `out.train_loss` with gradients of its mean, and what sampling from `in.init` drew at each
 * step by the random numbers in `in.u_*`.
 */
import {
  cosineLevels,
  evenLevels,
  guidedTokens,
  isNoise,
  noiseTokens,
  pickByShare,
  sampleTokens,
  type TokenDenoiser,
  type TokenDraws,
  tokenLoss,
  type TokenSampling,
} from "../../diffusion/discrete.ts";
import { graphOf, leafName } from "../../engine/graph.ts";
import { castArray, type NdArray, ndarray, toNumbers } from "../../engine/ndarray.ts";
import type { Tensor } from "../../engine/tensor.ts";
import { paella as model, paellaConfig } from "../../models/paella.ts";
import { paellaV1 as modelV1, paellaV1Config, shareAt } from "../../models/paella-v1.ts";
import { createParams, type ParamsRoot } from "../../nn/params.ts";
import { checkedWeights } from "../../weights/check-keys.ts";
import { type FieldReader, fieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors.ts";
import type { BackendSource, Computed } from "./family.ts";
import { computeNetwork, recordedInput, recordedModel, requiredInput } from "./network.ts";
import type { Recording } from "./recording.ts";
import { stacked } from "./scheduler-run.ts";

/** Logits of tokens, under the recorded conditions. */
type Asked = (tokens: Tensor) => Tensor;

export async function* paella(
  recording: Recording,
  backend: BackendSource,
): AsyncGenerator<Computed> {
  const { io } = recording;
  const config = paellaConfig(recordedModel(recording).args);
  const params = createParams();
  const told = { r: requiredInput(recording, "r"), text: requiredInput(recording, "byt5") };
  const [clipText, clipImage] = [recordedInput(io, "clip"), recordedInput(io, "clip_image")];
  const ask: Asked = (tokens) => model(params, { ...told, tokens, clipText, clipImage }, config);
  const tokens = requiredInput(recording, "x");
  const noise = noiseOf(recording, told.r);
  const losses = tokenLoss(ask(noiseTokens(tokens, noise)), tokens);
  yield* computeNetwork(recording, backend, {
    params,
    outputs: {
      "out.logits": ask(tokens),
      "out.logits_byt5_only": model(params, { ...told, tokens }, config),
      ...noiseOutputs(tokens, noise),
      "out.train_loss": losses,
    },
    loss: losses.mean(),
  });

  const settings = samplingOf(recording);
  if (!settings) return;
  const run = await program(recording, backend, params, ask(tokens));
  const names = ["byt5", "clip", "clip_image"].filter((name) => io.entries.has(`in.${name}`));
  const under = async (prefix: string): Promise<Record<string, NdArray>> =>
    Object.fromEntries(
      await Promise.all(
        names.map(async (name) => [`in.${name}`, firstRow(await io.read(prefix + name))] as const),
      ),
    );
  const [wanted, free] = [await under("in."), await under("in.uncond_")];
  const told1 = (conditions: Record<string, NdArray>): TokenDenoiser =>
    asked(run.logits, conditions);
  const { steps, temperature, renoiseSteps } = settings;
  const numbers = await drawnNumbers(io, "in.u_multinomial");
  yield* sampled(
    recording,
    guidedTokens(told1(wanted), told1(free), settings.fields.number("cfg")),
    {
      levels: evenLevels(steps, settings.fields.number("t_start"), settings.fields.number("t_end")),
      renoiseSteps,
      temperature,
    },
    (step, row, logits) => pickByShare(logits, numbers.at(step, row)),
  );
  await run.dispose();
}

export async function* paellaV1(
  recording: Recording,
  backend: BackendSource,
): AsyncGenerator<Computed> {
  const { io } = recording;
  const config = paellaV1Config(recordedModel(recording).args);
  const params = createParams();
  const [r, clip] = [requiredInput(recording, "r"), requiredInput(recording, "c")];
  const ask: Asked = (tokens) => modelV1(params, { r, tokens, clip }, config);
  const tokens = requiredInput(recording, "x");
  const noise = noiseOf(recording, shareAt(r));
  const loss = tokenLoss(ask(noiseTokens(tokens, noise)), tokens).mean();
  const map = recordedInput(io, "c_map");
  yield* computeNetwork(recording, backend, {
    params,
    outputs: {
      "out.logits": ask(tokens),
      ...(map && { "out.logits_c_map": modelV1(params, { r, tokens, clip: map }, config) }),
      "out.gamma": shareAt(r),
      ...noiseOutputs(tokens, noise),
      "out.train_loss": loss,
    },
    loss,
  });

  const settings = samplingOf(recording);
  if (!settings) return;
  const run = await program(recording, backend, params, ask(tokens));
  const wanted = firstRow(await io.read("in.c"));
  const free = ndarray("float32", wanted.shape, new Float32Array(wanted.data.length));
  const [told, untold] = [wanted, free].map((c) => asked(run.logits, { "in.c": c })) as [
    TokenDenoiser,
    TokenDenoiser,
  ];
  const { steps, temperature, renoiseSteps, fields } = settings;
  const scale = fields.number("classifier_free_scale");
  const numbers = await drawnNumbers(io, "in.u_gumbel");
  const tiny = 1e-20;
  yield* sampled(
    recording,
    scale < 0 ? told : guidedTokens(told, untold, scale),
    {
      levels: cosineLevels(steps),
      renoiseSteps,
      temperature,
      typicalMass: fields.flag("typical_filtering") ? fields.number("typical_mass") : undefined,
    },
    // The largest of logits with Gumbel's noise is drawn by their probabilities.
    (step, row, logits) =>
      largestOf(
        logits.map(
          (value, k) =>
            value - Math.log(-Math.log(numbers.at(step, row * logits.length + k) + tiny) + tiny),
        ),
      ),
  );
  await run.dispose();
}

function noiseOf(recording: Recording, share: Tensor) {
  return {
    random: requiredInput(recording, "random_x"),
    uniforms: requiredInput(recording, "noise_u"),
    share,
  };
}

function noiseOutputs(tokens: Tensor, noise: ReturnType<typeof noiseOf>): Record<string, Tensor> {
  return {
    "out.add_noise_x": noiseTokens(tokens, noise),
    "out.add_noise_mask": isNoise(noise.uniforms, noise.share).cast("int64"),
  };
}

interface Settings {
  readonly fields: FieldReader;
  readonly steps: number;
  readonly temperature: readonly [number, number];
  readonly renoiseSteps: number;
}

function samplingOf({ name, io, config }: Recording): Settings | undefined {
  if (!io.entries.has("out.sample")) return undefined;
  const fields = fieldReader(`${name}/config.json`, config.fields).object("sampling");
  // The first version has other names for the same.
  const own = io.entries.has("in.u_gumbel");
  const [first, last] = fields.numbers(own ? "temp_range" : "temperature");
  return {
    fields,
    steps: fields.count(own ? "T" : "steps"),
    temperature: [first!, last!],
    renoiseSteps: fields.number("renoise_steps"),
  };
}

/** The logits alone as a program. */
async function program(
  recording: Recording,
  backend: BackendSource,
  params: ParamsRoot,
  logits: Tensor,
) {
  const graph = graphOf({ logits });
  const weights = checkedWeights(params, recordedModel(recording).weights);
  const compiled = await (await backend()).compile(graph, { weights });
  const wanted = graph.inputs.map(leafName);
  return {
    logits: async (inputs: Record<string, NdArray>): Promise<NdArray> => {
      const given = Object.fromEntries(wanted.map((name) => [name, inputs[name]!]));
      return (await compiled.run(given))["logits"]!;
    },
    dispose: () => compiled.dispose(),
  };
}

function asked(
  logits: (inputs: Record<string, NdArray>) => Promise<NdArray>,
  conditions: Record<string, NdArray>,
): TokenDenoiser {
  return (tokens, time) =>
    logits({ ...conditions, "in.x": tokens, "in.r": ndarray("float32", [1], [time]) });
}

async function* sampled(
  { io }: Recording,
  denoise: TokenDenoiser,
  sampling: TokenSampling,
  pick: TokenDraws["pick"],
): AsyncGenerator<Computed> {
  const start = (await io.read("in.init")) as NdArray<"int64">;
  const noise = await drawnNumbers(io, "in.u_renoise");
  const places = start.data.length;
  const uniforms = (step: number) =>
    Array.from({ length: places }, (_, place) => noise.at(step, place));
  const [given, drawn]: [NdArray[], NdArray[]] = [[], []];
  let tokens: NdArray = start;
  for await (const step of sampleTokens(denoise, start, sampling, { pick, uniforms })) {
    given.push(step.given);
    drawn.push(step.drawn);
    tokens = step.tokens;
  }
  const results = { sample: tokens, sample_x_in: tokensOf(given), sample_drawn: tokensOf(drawn) };
  for (const [name, got] of Object.entries(results)) {
    yield { name: `out.${name}`, got, want: await io.read(`out.${name}`) };
  }
}

/** Of each step, [steps, …]. */
function tokensOf(steps: readonly NdArray[]): NdArray {
  return castArray(stacked(steps), "int64");
}

/** Recorded random numbers of each step. */
async function drawnNumbers(io: Weights, name: string) {
  const array = await io.read(name);
  const values = toNumbers(array);
  const each = values.length / array.shape[0]!;
  return { at: (step: number, i: number): number => values[step * each + i]! };
}

function firstRow(array: NdArray): NdArray<"float32"> {
  const [rows, ...rest] = array.shape as [number, ...number[]];
  const values = toNumbers(array);
  return ndarray("float32", [1, ...rest], values.slice(0, values.length / rows));
}

function largestOf(values: Float64Array): number {
  return values.reduce((best, value, k) => (value > values[best]! ? k : best), 0);
}
