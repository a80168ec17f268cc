/**
 * Paella, version 1 ("Fast Text-Conditional Discrete Denoising on Vector-Quantized Latent Spaces", Rampas et al., 2022): convolutions
 * without attention, modulated by the noise ratio and an embedding from CLIP. Weights have the names of dome272/Paella.
 */
import { FormatError } from "../../engine/errors.ts";
import { concat, constant } from "../../engine/graph/functional.ts";
import { ndarray } from "../../engine/arrays/ndarray.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import {
  channelsFirst,
  channelsLast,
  checkDivides,
  conv2d,
  doublingConv,
  padEdges,
} from "../../nn/convolutions.ts";
import { linear } from "../../nn/linear.ts";
import { norm } from "../../nn/norm.ts";
import { normal, type Params, xavierUniform } from "../../nn/params.ts";
import { noiseRatioEmbedding } from "../../nn/timestep-embedding.ts";
import type { FieldReader } from "../../weights/config-fields.ts";

export interface PaellaV1Config {
  /** Number of codes in the codebook. */
  readonly codebook: number;
  /** Channels at the lowest resolution; each higher level has half as many. */
  readonly hidden: number;
  /** Width of CLIP's vector of the text. */
  readonly clipWidth: number;
  /** Width of the embedding of the noise ratio. */
  readonly shareWidth: number;
  /** Number of blocks of each level on the way down, from the highest resolution. */
  readonly down: readonly number[];
  /** The same on the way up, in the order in which they run. */
  readonly up: readonly number[];
}

export interface PaellaV1Inputs {
  /** Codes [B, h, w], int64. */
  readonly tokens: Tensor;
  /** Noise ratio [B]; at the time r of the original it is `cosineShare(r)`. */
  readonly share: Tensor;
  /** The embedding from CLIP, [B, clipWidth], or one for each part of the image, [B, clipWidth, h', w']. */
  readonly clip: Tensor;
}

export const paellaV1Presets = {
  "Paella-v1": {
    codebook: 8192,
    hidden: 1280,
    clipWidth: 1024,
    shareWidth: 64,
    down: [4, 8, 16],
    up: [16, 8, 4],
  },
} satisfies Record<string, PaellaV1Config>;

/**
 * Returns the logits of the code of each position, [B, codebook, h, w].
 *
 * @throws ShapeError if h and w cannot be halved once for each level with at least two rows and columns left
 */
export function paellaV1(p: Params, inputs: PaellaV1Inputs, config: PaellaV1Config): Tensor {
  const { codebook, down, up, hidden } = config;
  // The lowest level is padded by reflection too.
  checkDivides(inputs.tokens, 2 ** (down.length - 1), 2, "A map of tokens");
  const widths = down.map((_, level) => Math.floor(hidden / 2 ** (down.length - 1 - level)));
  const condition = conditionOf(inputs, config);
  const table = p.at("embedding").param("weight", [codebook, widths[0]!], normal(1));
  let x = channelsFirst(table.gather(inputs.tokens));
  const outputs: Tensor[] = [];
  for (const [level, blocks] of down.entries()) {
    const scope = p.at(`down_blocks.${level}`);
    let block = 0;
    const next = () => scope.at(String(block++));
    if (level > 0) x = conv2d(next(), x, widths[level]!, 4, { stride: 2, padding: 1 });
    for (let i = 0; i < blocks; i++) x = residualBlock(next(), x, condition, down);
    outputs.unshift(x);
  }
  for (const [above, blocks] of up.entries()) {
    const scope = p.at(`up_blocks.${above}`);
    let block = 0;
    const next = () => scope.at(String(block++));
    for (let i = 0; i < blocks; i++) {
      const skip = i === 0 && above > 0 ? outputs[above] : undefined;
      x = residualBlock(next(), x, condition, up, skip);
    }
    const lower = widths[widths.length - 2 - above];
    if (lower !== undefined) x = doublingConv(next(), x, lower, 4);
  }
  return conv2d(p.at("clf"), x, codebook, 1);
}

/** The modulation with channels last, [B, h', w', clipWidth + shareWidth], of one pixel if it is the same for all. */
function conditionOf(inputs: PaellaV1Inputs, { shareWidth }: PaellaV1Config): Tensor {
  const { share, clip } = inputs;
  const parts = channelsLast(clip.rank === 2 ? perImage(clip) : clip);
  const [h, w] = [parts.size(1), parts.size(2)];
  const embedded = channelsLast(perImage(noiseRatioEmbedding(share, shareWidth)));
  return concat([parts, embedded.expand([share.dim(0), h, w, shareWidth])], 3);
}

/** [B, C] → [B, C, 1, 1] */
const perImage = (x: Tensor): Tensor => x.reshape([...x.shape, 1, 1]);

/** A block [B, C, h, w] → [B, C, h, w]; `levels` selects the way down or up. */
function residualBlock(
  p: Params,
  x: Tensor,
  condition: Tensor,
  levels: readonly number[],
  skip?: Tensor,
): Tensor {
  const width = x.size(1);
  const spread = conv2d(p.at("depthwise.1"), padEdges(x, "reflect"), width, 3, {
    groups: width,
    padding: 0,
  });
  const layer = { kind: "layer", affine: true, epsilon: 1e-6 } as const;
  const normed = norm(p.at("ln.ln"), channelsLast(spread), layer);
  const everywhere = condition.size(1) === 1 && condition.size(2) === 1;
  const here = everywhere ? condition : resized(condition, x.size(2), x.size(3));
  const modulation = linear(p.at("cond_mapper"), here, width);
  const gamma = p.at("ln").param("gamma", [1, 1, 1], normal(1));
  const beta = p.at("ln").param("beta", [1, 1, 1], normal(1));
  const modulated = gamma.mul(modulation).mul(normed).add(beta.mul(modulation));
  const seen = skip ? concat([modulated, channelsLast(skip)], 3) : modulated;
  const inner = linear(p.at("channelwise.0"), seen, 4 * width).gelu();
  const blocks = levels.reduce((sum, count) => sum + count, 0);
  const init = xavierUniform([width, 4 * width], 1 / Math.sqrt(blocks));
  const branch = linear(p.at("channelwise.2"), inner, width, { init });
  const scale = p.param("gamma", [width], { kind: "constant", value: 1e-6 });
  return x.add(channelsFirst(branch.mul(scale)));
}

/** Resizes bilinearly, [B, h, w, C] → [B, H, W, C], as PyTorch does without aligned corners. */
function resized(x: Tensor, height: number, width: number): Tensor {
  const [h, w] = [x.size(1), x.size(2)];
  if (h === height && w === width) return x;
  const across = channelsFirst(x).matmul(constant(weightsOf(w, width)), { transposeB: true });
  return channelsLast(constant(weightsOf(h, height)).matmul(across));
}

/** A matrix whose row i holds the weights of the `from` pixels in pixel i of `to`. */
function weightsOf(from: number, to: number) {
  const weights = new Float32Array(to * from);
  for (let i = 0; i < to; i++) {
    const at = Math.max(0, ((i + 0.5) * from) / to - 0.5);
    const first = Math.min(Math.floor(at), from - 1);
    const second = Math.min(first + 1, from - 1);
    weights[i * from + first]! += 1 - (at - first);
    weights[i * from + second]! += at - first;
  }
  return ndarray("float32", [to, from], weights);
}

/**
 * The arguments of DenoiseUNet in dome272/Paella's first version.
 *
 * @throws FormatError that names the field at fault
 */
export function paellaV1Config(read: FieldReader): PaellaV1Config {
  const preset = paellaV1Presets["Paella-v1"];
  const down = read.counts("down_levels", preset.down);
  const up = read.counts("up_levels", preset.up);
  if (down.length !== up.length) {
    throw new FormatError(
      `${read.file} has ${down.length} down_levels and ${up.length} up_levels; give as many of both.`,
    );
  }
  const config: PaellaV1Config = {
    codebook: read.count("num_labels"),
    hidden: read.count("c_hidden", preset.hidden),
    clipWidth: read.count("c_clip", preset.clipWidth),
    shareWidth: read.count("c_r", preset.shareWidth),
    down,
    up,
  };
  read.finish("DenoiseUNet");
  return config;
}
