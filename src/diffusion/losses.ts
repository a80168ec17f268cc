/**
 * Training losses as graphs: from a batch of images and noise, one number for each image, whose mean is minimised.
 */
import type { Tensor } from "../engine/graph/tensor.ts";
import { gain, type Parameterization, type SignalAndNoise, targetOf } from "./parameterization.ts";

/** A batch of images, each with its own noise and noise level. */
export interface Example {
  /** [B, …] */
  readonly x0: Tensor;
  /** Standard normal, of x0's shape. */
  readonly noise: Tensor;
  /** alpha and sigma of each image, broadcastable to x0 (see `perImage`). */
  readonly level: SignalAndNoise<Tensor>;
}

/**
 * Reshapes numbers [B] to [B, 1, …], for products with images of x's rank; numbers of the frames of clips [B, C, F, …], one for each or
 * for each few, [B, times], become [B, 1, F, 1, …].
 */
export function perImage(values: Tensor, x: Tensor): Tensor {
  if (values.rank === 2) {
    const [rows, frames] = [values.dim(0), x.size(2)];
    const each = values.unsqueeze(-1).expand([rows, values.size(1), frames / values.size(1)]);
    return each.reshape([rows, 1, frames, ...x.shape.slice(3).map(() => 1)]);
  }
  return values.reshape([values.dim(0), ...x.shape.slice(1).map(() => 1)]);
}

/** The network's input x = alpha · x0 + sigma · noise. */
export function noised({ x0, noise, level }: Example): Tensor {
  return x0.mul(level.alpha).add(noise.mul(level.sigma));
}

/** Levels of rectified flow from times [B], or of frames [B, times], in [0, 1]: alpha = 1 − time, sigma = time. */
export function flowLevel(times: Tensor, x: Tensor): SignalAndNoise<Tensor> {
  const sigma = perImage(times, x);
  return { alpha: sigma.neg().add(1), sigma };
}

/** Mean over all but the batch: [B, …] → [B]. */
export function meanOfImage(x: Tensor): Tensor {
  return x.mean(x.shape.slice(1).map((_, i) => i + 1));
}

/** Mean over the axes along which the level is the same, all but the batch and for clips the frames: [B, …] → [B] or [B, F]. */
function meanAtLevel(x: Tensor, { sigma }: SignalAndNoise<Tensor>): Tensor {
  const axes = x.shape.map((_, axis) => axis).slice(1);
  return x.mean(axes.filter((axis) => sigma.shape[axis] === 1));
}

/** Weight of each noise level in the loss. */
export type Weighting =
  /**
   * Measures the distance in another prediction. "flow" for a network that predicts x0 is the v-loss of JiT
   * (Li & He, 2025, table 1), which takes no sigma below 0.05; sigma has no lower bound unless given.
   */
  | { readonly kind: "space"; readonly space: Parameterization; readonly lowestSigma?: number }
  /** min(signal-to-noise ratio, gamma) times the distance in x0 (Hang et al., 2023, section 3.4); 5 in the paper. */
  | { readonly kind: "min-snr"; readonly gamma: number };

export interface RegressionOptions {
  /** What the network predicts. */
  readonly parameterization: Parameterization;
  /** Equal weights unless given. */
  readonly weighting?: Weighting | undefined;
}

/**
 * Mean squared distance between prediction and target, [B], or [B, F] where frames have levels of their own. Without a weighting it is the simple loss of Ho et al. (2020,
 * eq. 14); on levels of rectified flow with "flow" it is flow matching.
 *
 * @param output of the network on `noised(example)`, of its shape
 */
export function regressionLoss(
  output: Tensor,
  { x0, noise, level }: Example,
  { parameterization, weighting }: RegressionOptions,
): Tensor {
  const target = targetOf(parameterization, level, { x0, noise });
  const loss = meanAtLevel(output.sub(target).square(), level);
  if (!weighting) return loss;
  // At the same x, the errors of two kinds of predictions are multiples of each other.
  if (weighting.kind === "space") {
    const bounded = withSigma(level, weighting.lowestSigma ?? 0);
    return weighted(loss, square(gain(parameterization, weighting.space, bounded)));
  }
  const ratio = level.alpha.div(level.sigma).square();
  const inX0 = weighted(loss, square(gain(parameterization, "x0", level)));
  return weighted(inX0, ratio.minimum(weighting.gamma));
}

/** The level with no less than this sigma, and less alpha for it. */
function withSigma({ alpha, sigma }: SignalAndNoise<Tensor>, lowest: number) {
  if (lowest === 0) return { alpha, sigma };
  const raised = sigma.maximum(lowest);
  return { alpha: alpha.add(sigma).sub(raised), sigma: raised };
}

function square(value: number | Tensor): number | Tensor {
  return typeof value === "number" ? value ** 2 : value.square();
}

/** Losses times weights of the levels' shape, or a number. */
function weighted(loss: Tensor, weight: number | Tensor): Tensor {
  if (typeof weight === "number") return weight === 1 ? loss : loss.mul(weight);
  return loss.mul(weight.reshape(loss.shape));
}
