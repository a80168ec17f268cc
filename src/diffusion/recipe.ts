/**
 * A recipe: the process by which a network is trained and sampled, as plain data in config files and trained folders. The
 * loss, the random draws of training and the levels of sampling all follow from it, so that sampling fits training.
 */
import * as z from "zod";
import {
  constantOf,
  detach,
  full,
  input,
  onesLike,
  where,
  zerosLike,
} from "../engine/graph/functional.ts";
import {
  guidedVelocity,
  meanFlowDefaults,
  meanFlowLoss,
  type MeanFlowTimes,
  meanFlowTimes,
  velocityTo,
} from "./mean-flow.ts";
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { UsageError } from "../engine/errors.ts";
import { fork, normal, type RandomKey, uniform } from "../engine/random/random.ts";
import { batch } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { checkSteps, flowLevels, type NoiseLevel, refuseShift, shiftAt } from "./levels.ts";
import { drawFrameTimes, frameLevelsSchema } from "./frame-times.ts";
import { type Example, flowLevel, noised, regressionLoss, type Weighting } from "./losses.ts";
import { x0Of } from "./parameterization.ts";
import { diffusionProcess, type DiffusionProcess, levelsOf, respaced } from "./process.ts";
import { betasOf, zeroTerminalSNR } from "./schedule.ts";
import { respacedTimesteps } from "./timesteps.ts";
import { flowTimes, largestModeScale, uniformSteps } from "./training-times.ts";
import { exampleAt, hybridLoss } from "./variational-bound.ts";

const parameterization = z.enum(["epsilon", "x0", "v", "flow"]);

const weighting = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("space"),
    /** The space in which errors are measured. */
    space: parameterization,
    /** The level of noise, in [0, 1], below which weights no longer grow. */
    lowestSigma: z.number().min(0).max(1).optional(),
  }),
  z.strictObject({
    kind: z.literal("min-snr"),
    /** The largest signal-to-noise ratio that counts as a weight, above 0; 5 in Hang et al., 2023. */
    gamma: z.number().positive(),
  }),
]);

/** The distribution of training times of a flow. */
export const timesSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("uniform") }),
  z.strictObject({
    kind: z.literal("logit-normal"),
    /** Mean of the logit of the time; 0 by default. */
    mean: z.number().default(0),
    /** Standard deviation of the logit of the time, above 0; 1 by default. */
    std: z.number().positive().default(1),
  }),
  z.strictObject({
    kind: z.literal("mode"),
    /** The weight of the middle times, from −1 to 1.75; 1.29 by default (Esser et al., 2024). */
    scale: z.number().min(-1).max(largestModeScale).default(1.29),
  }),
  z.strictObject({ kind: z.literal("cosmap") }),
]);

const flow = z.strictObject({
  /** Rectified flow (Liu et al., 2023): a straight line from noise to data. */
  process: z.literal("flow"),
  /** The quantity that the network predicts: "epsilon", "x0", the default, "v" or "flow". */
  predicts: parameterization.default("x0"),
  /** The loss measures errors of the velocity unless given: JiT's v-loss (Li & He, 2025). */
  weighting: weighting.default({ kind: "space", space: "flow", lowestSigma: 0.05 }),
  /** The distribution of training times; logit-normal with mean and deviation 0.8 by default. */
  times: timesSchema
    // As in JiT, whose times run the other way: its mean of −0.8 is 0.8 here.
    .default({ kind: "logit-normal", mean: 0.8, std: 0.8 }),
  /** Standard deviation of the noise, 1 unless given; larger pictures need more of it (2 for MiniT2I's 512×512 pixels). */
  noiseScale: z.number().positive().optional(),
  /**
   * Learns the mean velocity of whole steps (see mean-flow.ts), with guidance in the network, so that few steps suffice. The
   * network predicts x0, and is of a family that is told the step; its own unconditional velocity guides it.
   */
  meanFlow: z
    .strictObject({
      /** Share of the examples whose step has no length. */
      instantShare: z.number().min(0).max(1).default(meanFlowDefaults.instantShare),
      /** Guidance is learned from 1 to one more than this. */
      mostGuidance: z.number().min(0).default(meanFlowDefaults.mostGuidance),
    })
    .optional(),
  /** For clips: whether their frames have one noise level or several in training; the usual mixture unless given. */
  frameLevels: frameLevelsSchema.optional(),
  /** A number, or the value for inputs of `area` = height × width, times the frames of a clip, which is scaled for other sizes. */
  shift: z
    .union([
      z.number().positive(),
      z.strictObject({
        /** The shift at `area`, above 0; 1 by default. */
        value: z.number().positive().default(1),
        /** Height × width of the inputs that have this shift. */
        area: z.int().min(1),
      }),
    ])
    .default(1),
});

const discrete = z.strictObject({
  /** Noise in a fixed number of steps (DDPM; Ho et al., 2020). */
  process: z.literal("discrete"),
  /** The quantity that the network predicts: "epsilon", the default, "x0", "v" or "flow". */
  predicts: parameterization.default("epsilon"),
  /** The number of noise levels of the training, from 2; 1000 by default. */
  steps: z.int().min(2).default(1000),
  /** The variance of the noise of each step; linear by default. */
  schedule: z
    .discriminatedUnion("kind", [
      z.strictObject({
        /** The curve on which the variance rises: linear, or linear in its root as in latent diffusion. */
        kind: z.enum(["linear", "scaled-linear"]),
        /** Variance of the first step's noise, above 0; 0.0001 for "linear" and 0.00085 for "scaled-linear" by default. */
        start: z.number().positive().optional(),
        /** Variance of the last step's noise, above 0; 0.02 for "linear" and 0.012 for "scaled-linear" by default. */
        end: z.number().positive().optional(),
      }),
      z.strictObject({
        kind: z.literal("cosine"),
        /** The largest variance of a step's noise, above 0; 0.999 by default. */
        maxBeta: z.number().positive().optional(),
      }),
    ])
    .default({ kind: "linear" }),
  /** True if the last level is pure noise (Lin et al., 2024); false by default. */
  zeroTerminalSNR: z.boolean().default(false),
  /** Equal weights of all steps unless given; not allowed with a learned variance, which has a loss of its own. */
  weighting: weighting.optional(),
});

export const recipeSchema = z
  .discriminatedUnion("process", [flow, discrete])
  .superRefine((recipe, context) => {
    if (recipe.process === "flow" && recipe.meanFlow && recipe.predicts !== "x0") {
      const message = `a mean flow is learned by networks that predict x0, not ${recipe.predicts}; leave one of them out`;
      context.addIssue({ code: "custom", path: ["meanFlow"], message });
    }
    if (recipe.predicts !== "epsilon") return;
    if (recipe.process === "discrete" && !recipe.zeroTerminalSNR) return;
    context.addIssue({
      code: "custom",
      path: ["predicts"],
      // Lin et al., 2024, section 3.2: x is pure noise there, so predicting the noise says nothing about the image.
      message: `a network that predicts epsilon learns nothing at pure noise, where ${recipe.process === "flow" ? "a flow" : "zeroTerminalSNR"} begins to draw; predict v or x0`,
    });
  });

export type Recipe = z.output<typeof recipeSchema>;

/** Rectified flow as Stable Diffusion 3 is trained (Esser et al., 2024), at its times or others. */
export function rectifiedFlow(
  shift: number,
  times: z.output<typeof timesSchema> = { kind: "logit-normal", mean: 0, std: 1 },
): Recipe {
  return {
    process: "flow",
    predicts: "flow",
    weighting: { kind: "space", space: "flow" },
    times,
    shift,
  };
}

/** DDPM in 1000 steps, for a network that predicts the noise (Ho et al., 2020). */
export function ddpmRecipe(kind: "linear" | "scaled-linear" | "cosine"): Recipe {
  return {
    process: "discrete",
    predicts: "epsilon",
    steps: 1000,
    schedule: { kind },
    zeroTerminalSNR: false,
  };
}

/** The network's unit for time 1. */
export const timeScale = 1000;

/**
 * Loss [B] of a network on images x0 [B, …], as a graph with two additional inputs, `noise` of x0's shape and `time` [B],
 * which `drawExamples` draws.
 *
 * @param network x [B, …] and its times [B], in the network's unit → its prediction
 * @param learnedVariance whether the prediction has a variance in a second half of its channels
 * @param further another loss [B] to add, given the example and the clean images that the network predicts
 * @param times of a clip, one for each patch along the axis of time, where the network takes them: `time` and another input, `counts`, are [B, times]
 * @throws UsageError when a discrete process has a weighting and a learned variance
 */
export function recipeLoss(
  recipe: Recipe,
  x0: Tensor,
  network: (x: Tensor, t: Tensor) => Tensor,
  learnedVariance: boolean,
  further?: (example: Example, predicted: Tensor) => Tensor,
  times?: number,
): Tensor {
  const noise = input("noise", x0.shape, x0.dtype);
  const parameterizationOf = { parameterization: recipe.predicts };
  if (recipe.process === "discrete" && recipe.weighting && learnedVariance) {
    throw new UsageError(
      "diffusion.weighting has no effect together with model.learnedVariance, which has a loss of its own; leave one of them out.",
    );
  }
  const withFurther = (losses: Tensor, example: Example, prediction: Tensor) =>
    further
      ? losses.add(
          further(example, x0Of(recipe.predicts, example.level, noised(example), prediction)),
        )
      : losses;
  if (recipe.process === "flow") {
    const time = input("time", times === undefined ? [batch] : [batch, times]);
    const scaled = recipe.noiseScale === undefined ? noise : noise.mul(recipe.noiseScale);
    const example = { x0, noise: scaled, level: flowLevel(time, x0) };
    const output = network(noised(example), time.mul(timeScale));
    const [prediction] = learnedVariance ? output.split(2, 1) : [output];
    const losses = regressionLoss(prediction!, example, {
      ...parameterizationOf,
      weighting: recipe.weighting as Weighting,
    });
    if (times !== undefined) return meanOfCounted(losses, input("counts", [batch, times]), x0);
    return withFurther(losses, example, prediction!);
  }
  const process = processOf(recipe);
  const steps = input("time", [batch], "int64");
  const processTimes = constantOf([...process.times], [process.times.length]).gather(steps);
  const discreteExample = { x0, noise, steps };
  const example = exampleAt(process, discreteExample);
  const output = network(noised(example), processTimes);
  if (!learnedVariance) {
    const losses = regressionLoss(output, example, {
      ...parameterizationOf,
      weighting: recipe.weighting as Weighting | undefined,
    });
    return withFurther(losses, example, output);
  }
  const { loss } = hybridLoss(process, output, discreteExample, {
    ...parameterizationOf,
    variance: "learned",
    objective: "mse",
  });
  return withFurther(loss, example, output.split(2, 1)[0]!);
}

/** Mean of the losses [B, F] of a clip's frames that count: [B]. */
function meanOfCounted(losses: Tensor, counts: Tensor, x0: Tensor): Tensor {
  const [rows, frames, times] = [losses.dim(0), x0.size(2), counts.size(1)];
  const each = counts
    .unsqueeze(-1)
    .expand([rows, times, frames / times])
    .reshape([rows, frames]);
  return losses.reshape([rows, frames]).mul(each).sum(1).div(each.sum(1));
}

/**
 * Loss [B] of a mean flow, with the inputs of `recipeLoss` and `span`, `guidance`, `from` and `to` [B]. The guided velocity is
 * that of Geng et al. (2025, eq. 17): the example's own, led away from what the network predicts without its condition. Its value is the mean
 * squared distance, and its gradient that of the adaptive loss.
 *
 * @param network noisy images [B, …], times [B] and the step → predicted images; `unconditional` leaves out every condition
 * @param drop rows whose condition is dropped, [B] bool; these are not guided
 */
export function meanFlowRecipeLoss(
  recipe: Extract<Recipe, { process: "flow" }>,
  x0: Tensor,
  network: (
    x: Tensor,
    t: Tensor,
    step: Pick<MeanFlowTimes<Tensor>, "guidance" | "from" | "to"> & { readonly span: Tensor },
    options: { readonly unconditional: boolean },
  ) => Tensor,
  drop: Tensor,
): Tensor {
  const one = (name: string) => input(name, [batch]);
  const t = one("time");
  const guidance = where(drop, full([], 1), one("guidance"));
  const times = { t, r: t.sub(one("span")), guidance, from: one("from"), to: one("to") };
  const noise = input("noise", x0.shape, x0.dtype).mul(recipe.noiseScale ?? 1);
  const x = noised({ x0, noise, level: flowLevel(t, x0) });
  const none = zerosLike(t);
  const instant = { span: none, guidance: onesLike(t), from: none, to: onesLike(t) };
  const free = network(x, t.mul(timeScale), instant, { unconditional: true });
  const velocity = guidedVelocity(
    { conditional: noise.sub(x0), unconditional: detach(velocityTo(free, x, t)) },
    times,
  );
  const { distance, loss } = meanFlowLoss(x, times, velocity, (at, from, to) =>
    velocityTo(
      network(at, from.mul(timeScale), { ...times, span: from.sub(to) }, { unconditional: false }),
      at,
      from,
    ),
  );
  const mean = distance.div(x0.shape.slice(1).reduce<number>((all, dim) => all * Number(dim), 1));
  return loss.add(detach(mean.sub(loss)));
}

/** Random inputs of a loss by name. */
export type DrawnExamples = Readonly<Record<"noise" | "time", NdArray>> &
  Readonly<Record<string, NdArray>>;

/** The frames of a batch of clips. */
export interface DrawnFrames {
  /** Times of a clip, one for each patch along the axis of time. */
  readonly times: number;
  /** The times that each clip has, where some are shorter. */
  readonly lengths?: readonly number[] | undefined;
}

/**
 * Draws the loss's inputs `noise` and `time`, and those of a mean flow, for images of a shape [B, …].
 *
 * @param frames for networks that take times of frames, with the input `counts`
 */
export function drawExamples(
  recipe: Recipe,
  key: RandomKey,
  shape: readonly number[],
  frames?: DrawnFrames,
): DrawnExamples {
  if (recipe.process === "flow" && recipe.meanFlow) {
    return { noise: normal(fork(key, "noise"), shape), ...drawnSteps(recipe, key, shape[0]!) };
  }
  const [count] = shape as readonly [number, ...number[]];
  const size = shape.slice(-2) as [number, number];
  const times = fork(key, "time");
  const noise = normal(fork(key, "noise"), shape);
  if (recipe.process !== "flow") return { noise, time: uniformSteps(times, count, recipe.steps) };
  const shift = shiftAt(recipe.shift, size, shape.length === 5 ? shape[2] : 1);
  const draw = (own: RandomKey, wanted: number) =>
    flowTimes(own, wanted, { distribution: recipe.times, shift });
  if (!frames) return { noise, time: draw(times, count) };
  const { lengths } = frames;
  const levels = recipe.frameLevels;
  return { noise, ...drawFrameTimes(times, [count, frames.times], draw, { levels, lengths }) };
}

/** Times, spans and guidance of a mean flow's examples, [B] each. */
function drawnSteps(
  { times, meanFlow }: Extract<Recipe, { process: "flow" }>,
  key: RandomKey,
  count: number,
): Readonly<Record<"time" | "span" | "guidance" | "from" | "to", NdArray>> {
  if (times.kind !== "logit-normal") {
    throw new UsageError(
      `diffusion.times is ${times.kind}, but a mean flow draws logit-normal times; give these, or leave meanFlow out.`,
    );
  }
  const numbers = (name: string) => normal(fork(key, name), [count]).data;
  const shares = (name: string) => uniform(fork(key, name), [count]).data;
  const [t, r] = [numbers("time"), numbers("end")];
  const [from, to, guidance] = [shares("from"), shares("to"), shares("guidance")];
  const draws = Array.from({ length: count }, (_, i) => ({
    t: t[i]!,
    r: r[i]!,
    from: from[i]!,
    to: to[i]!,
    guidance: guidance[i]!,
  }));
  const drawn = meanFlowTimes(draws, { ...meanFlowDefaults, ...times, ...meanFlow! });
  const array = (values: readonly number[]) => ndarray("float32", [count], values);
  return {
    time: array(drawn.t),
    span: array(drawn.t.map((first, i) => first - drawn.r[i]!)),
    guidance: array(drawn.guidance),
    from: array(drawn.from),
    to: array(drawn.to),
  };
}

/** What levels depend on besides the number of steps. */
export interface LevelOptions {
  /** Height and width of the network's input. */
  readonly size: readonly [height: number, width: number];
  /** Frames of the network's input, for clips. */
  readonly frames?: number | undefined;
  /** Time shift of a flow; the recipe's own unless given. */
  readonly shift?: number | undefined;
}

/**
 * Levels for sampling in a number of steps, noisiest first. Those of a discrete process are evenly spaced from its first to
 * its last step, as in DiT's code.
 *
 * @throws UsageError if the process has fewer steps, or a shift is given for a discrete process
 */
export function recipeLevels(
  recipe: Recipe,
  steps: number,
  { size, frames, shift }: LevelOptions,
): NoiseLevel[] {
  if (recipe.process === "flow") {
    return flowLevels(steps, { shift: shiftAt(shift ?? recipe.shift, size, frames), timeScale });
  }
  refuseShift(shift);
  checkSteps(steps, recipe.steps);
  return levelsOf(respaced(processOf(recipe), respacedTimesteps(recipe.steps, [steps])));
}

function processOf(recipe: Extract<Recipe, { process: "discrete" }>): DiffusionProcess {
  const betas = betasOf(recipe.schedule as Parameters<typeof betasOf>[0], recipe.steps);
  return diffusionProcess(recipe.zeroTerminalSNR ? zeroTerminalSNR(betas) : betas);
}
