/**
 * Sampling and training of MiniT2I, whose own times run from 0, noise, to 1. A recording has `out.RUN.t` and `out.RUN.traj` for
 * each of `args.runs`, `out.loss.aNN.…` with a lowest time of NN hundredths, `out.loss.x0_mse`, `out.seeded.…`, drawn times
 * `out.t_lognorm`, and the conversions `out.to_u8` and `out.from_u8`.
 */
import { combine, mapElements } from "../diffusion/arrays.ts";
import { batchedNetwork, denoiserOf, type Network } from "../diffusion/denoiser.ts";
import { guided } from "../diffusion/guidance.ts";
import { flowLevels, timesInside } from "../diffusion/levels.ts";
import { type Example, flowLevel, noised, regressionLoss } from "../diffusion/losses.ts";
import { withLowestTime } from "../diffusion/lowest-time.ts";
import { euler } from "../diffusion/samplers/ddim.ts";
import { timeOf } from "../diffusion/training-times.ts";
import { type NdArray, ndarray, toNumbers, zeros } from "../engine/arrays/ndarray.ts";
import { gradient } from "../engine/gradients/gradient.ts";
import { full, input } from "../engine/graph/functional.ts";
import { graphOf } from "../engine/graph/graph.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { pick } from "../engine/records.ts";
import { createParams } from "../nn/params.ts";
import { picturesOf, valuesOf } from "../pictures/picture.ts";
import { checkedWeights } from "../weights/check-keys.ts";
import type { FieldReader } from "../weights/config-fields.ts";
import type { BackendSource, Computed, Family } from "./family.ts";
import { recordedConfig, recordedFamily } from "./forward.ts";
import { recordedFields, recordedModel, requiredInput, runRecorded } from "./network.ts";
import type { Recording } from "./recording.ts";
import { stacked } from "./scheduler-run.ts";

export const miniT2ISampling: Family = async function* compute(recording, backend) {
  const args = recordedFields(recording).object("args");
  yield* trajectories(recording, backend, args);
  yield* losses(recording, backend, args);
  yield* conversions(recording, args);
};

async function* trajectories(
  recording: Recording,
  backend: BackendSource,
  args: FieldReader,
): AsyncGenerator<Computed> {
  const { io } = recording;
  const { network, dispose } = await askedModel(recording, backend);
  const lowest = lowestTime(args);
  const denoiser = (under: Network) => denoiserOf(withLowestTime(under, lowest), "x0");
  const [text, mask] = [await io.read("in.text"), await io.read("in.mask")];
  const kept = ndarray("bool", mask.shape, toNumbers(mask));
  const [conditional, unconditional] = [
    denoiser(network({ y: text, mask: kept })),
    denoiser(network({ y: text, mask: zeros("bool", mask.shape) })),
  ];
  const start = combine([args.number("noise_scale"), await io.read("in.noise")]);
  const runs = args.object("runs");
  try {
    for (const name of runs.all) {
      const run = runs.object(name);
      const levels = flowLevels(run.count("n_T"));
      const [first, last] = run.numbers("cfg_interval") as [number, number];
      const denoise = guided(conditional, unconditional, {
        scale: run.number("cfg_scale"),
        interval: timesInside(1 - last, 1 - first),
      });
      const states: NdArray[] = [start];
      for await (const { x } of euler(denoise, start, levels)) states.push(x);
      const times = levels.map(({ sigma }) => 1 - sigma);
      yield {
        name: `out.${name}.t`,
        got: ndarray("float32", [times.length], times),
        want: await io.read(`out.${name}.t`),
        tolerance: { atol: 1e-6 },
      };
      const want = await io.read(`out.${name}.traj`);
      yield { name: `out.${name}.traj`, got: stacked(states), want, tolerance: { ofRow: 2e-4 } };
    }
  } finally {
    await dispose();
  }
}

/** The recorded network with symbolic batch, for any conditions. */
async function askedModel(recording: Recording, backend: BackendSource) {
  const params = createParams();
  const like = (name: string, recorded: string) =>
    input(name, requiredInput(recording, recorded).shape);
  const x = like("x", "noise");
  const y = like("y", "text");
  const mask = input("mask", requiredInput(recording, "mask").shape, "bool");
  const output = predicted(recording, params, { x, y, mask });
  const weights = checkedWeights(params, recordedModel(recording).weights);
  const program = await (await backend()).compile(graphOf({ output }), { weights });
  const network = batchedNetwork(async (rows) => {
    const told = pick(rows, (name) => name !== "t");
    return (await program.run(told))["output"]!;
  });
  return { network, dispose: () => program.dispose() };
}

function predicted(
  recording: Recording,
  params: ReturnType<typeof createParams>,
  inputs: { readonly x: Tensor; readonly y: Tensor; readonly mask: Tensor },
): Tensor {
  const family = recordedFamily("minit2i");
  // The network is not told the time.
  const t = full([inputs.x.dim(0)], 0);
  return family.trace(params, { ...inputs, t }, recordedConfig(family, recording), {});
}

async function* losses(
  recording: Recording,
  backend: BackendSource,
  args: FieldReader,
): AsyncGenerator<Computed> {
  const { io } = recording;
  const leaf = (name: string) => requiredInput(recording, name);
  const params = createParams();
  const [x0, y, mask] = [leaf("loss.x"), leaf("loss.text"), leaf("loss.mask").cast("bool")];
  const scale = args.number("noise_scale");
  const exampleOf = (noise: Tensor, time: Tensor): Example => ({
    x0,
    noise: noise.mul(scale),
    level: flowLevel(time.neg().add(1), x0),
  });
  const example = exampleOf(leaf("loss.noise"), leaf("loss.t"));
  const x = noised(example);
  const prediction = predicted(recording, params, { x, y, mask });
  const names = [...io.entries.keys()].filter((name) => /^out\.(loss|seeded)\./.test(name));
  const bounds = new Set(names.map((name) => /^out\.loss\.a(\d+)\./.exec(name)?.[1] ?? "05"));
  const known: Record<string, Tensor> = {
    ...Object.assign({}, ...[...bounds].map((bound) => lossOutputs(bound, example, prediction))),
    "out.loss.x0_mse": prediction.sub(x0).square().mean(),
  };
  const { mean, std } = drawnTimes(args);
  const drop = leaf("seeded.drop_u").less(args.object("label_drop_rate").number("out.seeded"));
  const time = leaf("seeded.t_z")
    .mul(std)
    .add(mean)
    .sigmoid()
    .clamp(...limitsOf(args));
  const seeded = exampleOf(leaf("seeded.noise"), time);
  const left = predicted(recording, params, {
    x: noised(seeded),
    y,
    mask: mask.and(drop.not().unsqueeze(1)),
  });
  known["out.seeded.t"] = time;
  known["out.seeded.dropped"] = drop.cast("int64");
  known["out.seeded.loss"] = lossOf(left, seeded, lowestTime(args)).mean();
  const outputs = pick(known, (name) => io.entries.has(name));
  const weights = checkedWeights(params, recordedModel(recording).weights);
  const got = await runRecorded(graphOf(outputs), recording, backend, weights);
  for (const name of Object.keys(outputs)) {
    const want = await io.read(name);
    const tolerance = name.endsWith(".t")
      ? { atol: 1e-6 }
      : { ofRow: want.shape.length === 0 ? 1e-5 : 1e-4 };
    yield { name, got: got[name]!, want, tolerance };
  }
}

/** The least noise that velocities are computed with. */
function lowestTime(args: FieldReader): number {
  return args.object("a_min").number("sampling and training, PyTorch repository");
}

/** The normal numbers whose sigmoids are times. */
function drawnTimes(args: FieldReader): { readonly mean: number; readonly std: number } {
  return { mean: args.number("t_lognorm_mu"), std: args.number("t_lognorm_sigma") };
}

/** Drawn times are kept off both ends. */
function limitsOf(args: FieldReader): readonly [least: number, most: number] {
  return args.numbers("t_clamp") as [number, number];
}

function lossOf(prediction: Tensor, example: Example, lowest: number): Tensor {
  return regressionLoss(prediction, example, {
    parameterization: "x0",
    weighting: { kind: "space", space: "flow", lowestSigma: lowest },
  });
}

/**
 * The loss and its parts: velocities point from noise to picture in MiniT2I.
 *
 * @param bound hundredths of the lowest time, as names say it
 */
function lossOutputs(bound: string, example: Example, prediction: Tensor): Record<string, Tensor> {
  const { x0, level } = example;
  const [name, lowest] = [`a${bound}`, Number(bound) / 100];
  const x = noised(example);
  const velocity = (picture: Tensor) => picture.sub(x).div(level.sigma.maximum(lowest));
  const each = lossOf(prediction, example, lowest);
  return {
    [`out.loss.${name}.pred_x0`]: prediction,
    [`out.loss.${name}.x_t`]: x,
    [`out.loss.${name}.target`]: velocity(x0),
    [`out.loss.${name}.v_pred`]: velocity(prediction),
    [`out.loss.${name}.per_sample`]: each,
    [`out.loss.${name}.loss`]: each.mean(),
    [`out.loss.${name}.grad_pred_x0`]: gradient(each.mean(), [prediction])[0]!,
  };
}

async function* conversions({ io }: Recording, args: FieldReader): AsyncGenerator<Computed> {
  const { mean, std } = drawnTimes(args);
  const [least, most] = limitsOf(args);
  const times = toNumbers(await io.read("in.t_z")).map((value) => {
    const time = 1 - timeOf(-value, { kind: "logit-normal", mean: -mean, std });
    return Math.min(most, Math.max(least, time));
  });
  yield {
    name: "out.t_lognorm",
    got: ndarray("float32", [times.length], times),
    want: await io.read("out.t_lognorm"),
    tolerance: { atol: 1e-6 },
  };
  const values = await io.read("in.to_u8");
  const picture = picturesOf({ ...values, shape: [1, 1, 1, values.data.length] })[0]!;
  const pixels = ndarray("int64", values.shape, [...picture.pixels]);
  yield { name: "out.to_u8", got: pixels, want: await io.read("out.to_u8") };
  const bytes = await io.read("in.from_u8");
  const size = { height: 1, width: bytes.data.length, channels: 1 } as const;
  const back = valuesOf(Uint8Array.from(toNumbers(bytes)), size);
  yield {
    name: "out.from_u8",
    got: mapElements((value) => value, { ...back, shape: bytes.shape }),
    want: await io.read("out.from_u8"),
    tolerance: { atol: 1e-6 },
  };
}
