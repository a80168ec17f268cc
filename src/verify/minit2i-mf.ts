/**
 * The mean-flow form of MiniT2I: `out.CASE.x0` and the mean velocity `out.CASE.u`, trajectories `out.samp.sN.traj` of N steps,
 * and the parts of its loss, `out.loss.…`, under a recorded teacher. Gradients are those of the sum over the cases of the mean
 * of x0².
 */
import { combine } from "../diffusion/arrays.ts";
import { batchedNetwork, denoiserOf } from "../diffusion/denoiser.ts";
import { flowLevels } from "../diffusion/levels.ts";
import { flowLevel, noised } from "../diffusion/losses.ts";
import { withLowestTime } from "../diffusion/lowest-time.ts";
import {
  guidedVelocity,
  LOWEST_TIME,
  type MeanFlowTimes,
  meanFlowLoss,
  meanFlowTimes,
  velocityTo,
} from "../diffusion/mean-flow.ts";
import { euler } from "../diffusion/samplers/ddim.ts";
import { type NdArray, ndarray, toNumbers } from "../engine/arrays/ndarray.ts";
import { FormatError } from "../engine/errors.ts";
import { gradient } from "../engine/gradients/gradient.ts";
import { input, zerosLike } from "../engine/graph/functional.ts";
import { graphOf } from "../engine/graph/graph.ts";
import { batch } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { mapValues, pick } from "../engine/records.ts";
import type { WeightSource } from "../engine/runtime/backend.ts";
import { miniT2IConfig, miniT2IMeanFlowConfig } from "../models/minit2i/checkpoint.ts";
import { miniT2I } from "../models/minit2i/minit2i.ts";
import { createParams } from "../nn/params.ts";
import { checkedWeights } from "../weights/check-keys.ts";
import { fieldReader, type FieldReader } from "../weights/config-fields.ts";
import type { BackendSource, Computed, Family } from "./family.ts";
import {
  computeCases,
  recordedFields,
  recordedModel,
  requiredInput,
  runRecorded,
} from "./network.ts";
import type { Recording } from "./recording.ts";
import { stacked } from "./scheduler-run.ts";

export const miniT2IMeanFlow: Family = async function* compute(recording, backend) {
  const constants = recordedFields(recording).object("constants");
  yield* cases(recording, backend);
  yield* trajectories(recording, backend, constants);
  yield* loss(recording, backend, constants);
};

/** A recorded network's prediction of x0. */
function student(recording: Recording, params = createParams()) {
  const config = miniT2IMeanFlowConfig(recordedModel(recording).args);
  const predict = (
    x: Tensor,
    text: { readonly y: Tensor; readonly mask: Tensor },
    step: { readonly span: Tensor } & Pick<MeanFlowTimes<Tensor>, "guidance" | "from" | "to">,
  ) => miniT2I(params, { x, t: step.span, ...text, step }, config);
  return { params, predict };
}

async function* cases(recording: Recording, backend: BackendSource): AsyncGenerator<Computed> {
  const names = [...recording.io.entries.keys()].flatMap(
    (name) => /^out\.(\w+)\.x0$/.exec(name)?.[1] ?? [],
  );
  const networks = names.toSorted().map((name) => {
    const { params, predict } = student(recording);
    const leaf = (own: string) => requiredInput(recording, `${name}.${own}`);
    const x = leaf("img");
    const step = {
      span: leaf("h"),
      guidance: leaf("omega"),
      from: leaf("t_min"),
      to: leaf("t_max"),
    };
    const x0 = predict(x, { y: leaf("context"), mask: leaf("mask").cast("bool") }, step);
    const outputs = {
      [`out.${name}.x0`]: x0,
      [`out.${name}.u`]: velocityTo(x0, x, leaf("t")),
    };
    return { params, outputs, loss: x0.square().mean() };
  });
  yield* computeCases(recording, backend, networks);
}

async function* trajectories(
  recording: Recording,
  backend: BackendSource,
  constants: FieldReader,
): AsyncGenerator<Computed> {
  const { io } = recording;
  const { params, predict } = student(recording);
  const x = input("x", requiredInput(recording, "samp.noise").shape);
  const y = input("y", requiredInput(recording, "samp.context").shape);
  const mask = input("mask", requiredInput(recording, "samp.mask").shape, "bool");
  const one = (name: string) => input(name, [batch]);
  const step = { span: one("span"), guidance: one("guidance"), from: one("from"), to: one("to") };
  const graph = graphOf({ x0: predict(x, { y, mask }, step) });
  const weights = checkedWeights(params, recordedModel(recording).weights);
  const program = await (await backend()).compile(graph, { weights });
  const [context, tokens] = [await io.read("in.samp.context"), await io.read("in.samp.mask")];
  const rows = context.shape[0]!;
  const each = (value: number) => ndarray("float32", [rows], new Array<number>(rows).fill(value));
  const sampler = constants.object("sampler");
  const start = combine([constants.number("noise_scale"), await io.read("in.samp.noise")]);
  const network = batchedNetwork(async (asked) => {
    const told = pick(asked, (name) => name !== "t");
    return (await program.run(told))["x0"]!;
  });
  try {
    for (const name of io.entries.keys()) {
      const [, count] = /^out\.samp\.s(\d+)\.traj$/.exec(name) ?? [];
      if (count === undefined) continue;
      const conditions = {
        y: context,
        mask: ndarray("bool", tokens.shape, toNumbers(tokens)),
        span: each(1 / Number(count)),
        guidance: each(sampler.number("omega")),
        from: each(sampler.number("t_min")),
        to: each(sampler.number("t_max")),
      };
      const denoise = denoiserOf(withLowestTime(network(conditions), LOWEST_TIME), "x0");
      const states: NdArray[] = [start];
      for await (const state of euler(denoise, start, flowLevels(Number(count))))
        states.push(state.x);
      const want = await io.read(name);
      yield { name, got: stacked(states), want, tolerance: { ofRow: 2e-4 } };
    }
  } finally {
    await program.dispose();
  }
}

/** Names of the drawn times and guidance among the recorded outputs. */
const timeNames = { t: "t", r: "r", guidance: "omega", from: "t_min", to: "t_max" } as const;

async function* loss(
  recording: Recording,
  backend: BackendSource,
  constants: FieldReader,
): AsyncGenerator<Computed> {
  const { io } = recording;
  const times = await drawnTimes(recording, constants);
  for (const [own, name] of Object.entries(timeNames)) {
    const tolerance = own === "guidance" ? { rtol: 2e-6 } : { atol: 1e-6 };
    const want = await io.read(`out.loss.${name}`);
    yield { name: `out.loss.${name}`, got: times[own as keyof typeof times], want, tolerance };
  }
  const span = combine([1, times.t], [-1, times.r]);
  const h = await io.read("out.loss.h");
  yield { name: "out.loss.h", got: span, want: h, tolerance: { atol: 1e-6 } };

  const leaves = mapValues({ ...times }, (_, name) => input(`in.times.${name}`, [batch]));
  const known = leaves as unknown as MeanFlowTimes<Tensor>;
  const x0 = requiredInput(recording, "loss.x");
  const noise = requiredInput(recording, "draw.noise").mul(constants.number("noise_scale"));
  const x = noised({ x0, noise, level: flowLevel(known.t, x0) });
  const example = { x, times: known };
  const taught = await run(recording, backend, times, teacherOutputs(recording, example));
  yield* besideRecorded(recording, taught);
  // Teacher and student have weights of the same names, so each is a program of its own.
  const velocity = { "in.times.velocity": taught["out.loss.v_g"]! };
  const learned = studentOutputs(recording, example, constants);
  yield* besideRecorded(
    recording,
    await run(recording, backend, { ...times, ...velocity }, learned),
  );
}

async function drawnTimes(
  { io }: Recording,
  constants: FieldReader,
): Promise<MeanFlowTimes<NdArray>> {
  const [t, r, from, to, guidance] = await Promise.all(
    ["t_z", "r_z", "tmin_u", "tmax_u", "omega_u"].map(async (name) =>
      toNumbers(await io.read(`in.draw.${name}`)),
    ),
  );
  const draws = t!.map((_, i) => ({
    t: t![i]!,
    r: r![i]!,
    from: from![i]!,
    to: to![i]!,
    guidance: guidance![i]!,
  }));
  const times = meanFlowTimes(draws, {
    mean: constants.number("P_mean"),
    std: constants.number("P_std"),
    instantShare: constants.number("data_proportion"),
    mostGuidance: constants.number("cfg_max"),
    guidancePower: constants.number("cfg_beta"),
  });
  const arrays = mapValues({ ...times }, (values) => ndarray("float32", [values.length], values));
  return arrays as unknown as MeanFlowTimes<NdArray>;
}

interface NoisyExample {
  readonly x: Tensor;
  readonly times: MeanFlowTimes<Tensor>;
}

/** Outputs by their recorded names, and the weights that compute them. */
interface Outputs {
  readonly outputs: Readonly<Record<string, Tensor>>;
  readonly weights: WeightSource;
}

/** The teacher's velocity, with the text and with guidance. */
function teacherOutputs(recording: Recording, { x, times }: NoisyExample): Outputs {
  const { name, teacher } = recording;
  if (!teacher) {
    throw new FormatError(
      `${name} has a recorded loss, but its config.json has no "weights_teacher"; name the folder of the teacher's recording beside it.`,
    );
  }
  const args = fieldReader(`${name}'s teacher`, teacher.config.fields).object("args");
  const config = miniT2IConfig(args);
  const params = createParams();
  const [y, mask] = lossText(recording);
  const velocity = (kept: Tensor) =>
    velocityTo(miniT2I(params, { x, t: times.t, y, mask: kept }, config), x, times.t);
  const [conditional, unconditional] = [velocity(mask), velocity(zerosLike(mask))];
  const outputs = {
    "out.loss.z_t": x,
    "out.loss.v_c": conditional,
    "out.loss.v_g": guidedVelocity({ conditional, unconditional }, times),
  };
  return { outputs, weights: checkedWeights(params, teacher.weights) };
}

/** The loss of the recorded network under the velocity `in.times.velocity`. */
function studentOutputs(
  recording: Recording,
  { x, times }: NoisyExample,
  constants: FieldReader,
): Outputs {
  const { params, predict } = student(recording);
  const [y, mask] = lossText(recording);
  const velocity = input("in.times.velocity", x.shape);
  const u = (at: Tensor, t: Tensor, r: Tensor) =>
    velocityTo(predict(at, { y, mask }, { ...times, span: t.sub(r) }), at, t);
  const weight = { power: constants.number("norm_p"), epsilon: constants.number("norm_eps") };
  const result = meanFlowLoss(x, times, velocity, u, weight);
  const total = result.loss.mean();
  const outputs = {
    "out.loss.u": result.u,
    "out.loss.du_dt": result.derivative,
    "out.loss.target": result.implied,
    "out.loss.loss_u": result.distance,
    "out.loss.loss_u_raw": result.implied.sub(velocity).square().mean(),
    "out.loss.loss": total,
    "out.loss.grad_u": gradient(total, [result.u])[0]!,
  };
  return { outputs, weights: checkedWeights(params, recordedModel(recording).weights) };
}

function lossText(recording: Recording): [y: Tensor, mask: Tensor] {
  return [
    requiredInput(recording, "loss.context"),
    requiredInput(recording, "loss.mask").cast("bool"),
  ];
}

/** Runs outputs on recorded inputs and on those that were computed, which are named `in.times.…`. */
function run(
  recording: Recording,
  backend: BackendSource,
  computed: Readonly<Record<string, NdArray>> | MeanFlowTimes<NdArray>,
  { outputs, weights }: Outputs,
): Promise<Readonly<Record<string, NdArray>>> {
  const { io } = recording;
  const own = new Map(
    Object.entries(computed).map(([name, array]) => [
      name.startsWith("in.") ? name : `in.times.${name}`,
      array as NdArray,
    ]),
  );
  const read = async (name: string) => own.get(name) ?? io.read(name);
  return runRecorded(graphOf(outputs), { ...recording, io: { ...io, read } }, backend, weights);
}

async function* besideRecorded(
  { io }: Recording,
  got: Readonly<Record<string, NdArray>>,
): AsyncGenerator<Computed> {
  for (const [name, array] of Object.entries(got)) {
    if (!io.entries.has(name)) continue;
    const want = await io.read(name);
    yield { name, got: array, want, tolerance: { ofRow: want.shape.length === 0 ? 1e-5 : 2e-4 } };
  }
}
