/** Multi-head attention (Vaswani et al., 2017). */
import { attention, constant, full, where } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { linear, type LinearOptions, linearParts } from "./linear.ts";
import { type Norm, norm } from "./norm.ts";
import type { Params } from "./params.ts";
import { rotate, type RotaryTable } from "./positions.ts";
import { linearMixing, type MixedTokens, mixTokensBy } from "./token-mixing.ts";

export interface AttentionOptions {
  /** The number of attention heads, which divide the channels evenly. */
  readonly heads: number;
  /** Added to the scores, broadcastable to [B, heads, N, M]. */
  readonly bias?: Tensor | undefined;
  /** Factor of the scores; 1/√(channels of a head) by default. */
  readonly scale?: number | undefined;
  /** The tokens of another kind of attention than the full one. */
  readonly tokens?: MixedTokens | undefined;
}

/**
 * softmax(q·kᵀ·scale + bias)·v, with the heads side by side in the last axis: q [B, N, C], k and v [B, M, C] → [B, N, C].
 *
 * The tap `probabilities` is the softmax, [B, heads, N, M]. A device's fused attention never holds it, so a graph that
 * returns it has this layer's attention written out. Other kinds of attention than the full one have no such tap.
 */
export function mixTokens(
  p: Params,
  [q, k, v]: readonly [q: Tensor, k: Tensor, v: Tensor],
  { heads, bias, scale, tokens }: AttentionOptions,
): Tensor {
  if (tokens) return mixTokensBy(p, [q, k, v], { heads, bias, scale }, tokens);
  const mixed = attention(q, k, v, {
    heads,
    ...(bias && { bias }),
    ...(scale !== undefined && { scale }),
  });
  p.tap("probabilities", mixed.node.outputs[1]!);
  return mixed;
}

/** How the heads of queries and keys are prepared. */
export interface HeadOptions {
  /** Norm of the queries and keys of each head (Henry et al., 2020); none by default. */
  readonly qkNorm?: Norm | null | undefined;
  /** Scopes of these norms; `q_norm` and `k_norm` by default. */
  readonly normNames?: readonly [queries: string, keys: string];
  /** Rotates queries and keys by their positions, one row a token. */
  readonly rotary?: RotaryTable | null | undefined;
}

export interface ProjectionOptions extends HeadOptions {
  /** Scope of the projection; `qkv` by default. */
  readonly qkvName?: string;
  /** True if the projections to q, k and v have a bias; true by default. */
  readonly qkvBias?: boolean;
  /** Channels of a head; by default the heads share those of the tokens. */
  readonly headSize?: number | undefined;
}

export interface SelfAttentionOptions extends ProjectionOptions {
  /** Added to the scores, broadcastable to [B, heads, N, M]. */
  readonly bias?: Tensor | undefined;
  /** The tokens of another kind of attention than the full one. */
  readonly tokens?: MixedTokens | undefined;
}

/**
 * Queries, keys and values of all heads from one projection with timm's name `qkv`: [B, N, C] → 3 × [B, N, heads·headSize].
 */
export function queriesKeysValues(
  p: Params,
  x: Tensor,
  heads: number,
  { qkvName = "qkv", qkvBias = true, headSize = x.size(-1) / heads, ...options }: ProjectionOptions,
): [q: Tensor, k: Tensor, v: Tensor] {
  const parts = linearParts(p.at(qkvName), x, 3, heads * headSize, { bias: qkvBias });
  const [q, k, v] = parts as [Tensor, Tensor, Tensor];
  return [...preparedHeads(p, [q, k], headSize, options), v];
}

/** Norms and rotates the heads of queries [B, N, heads·headSize] and keys, which may have fewer heads. */
function preparedHeads(
  p: Params,
  [q, k]: readonly [q: Tensor, k: Tensor],
  headSize: number,
  { qkNorm, normNames = ["q_norm", "k_norm"], rotary }: HeadOptions,
): [q: Tensor, k: Tensor] {
  const prepared = (y: Tensor, name: string) => {
    if (!qkNorm && !rotary) return y;
    const split = y.reshape([y.dim(0), y.dim(1), y.size(2) / headSize, headSize]); // [B, N, heads, D]
    const normed = qkNorm ? norm(p.at(name), split, qkNorm) : split;
    return (rotary ? rotate(normed, rotary) : normed).reshape(y.shape);
  };
  return [prepared(q, normNames[0]), prepared(k, normNames[1])];
}

/**
 * Self-attention over all tokens, with q, k and v from one projection: [B, N, C] → [B, N, C].
 *
 * Parameters have timm's names `qkv` and `proj`.
 */
export function selfAttention(
  p: Params,
  x: Tensor,
  heads: number,
  { bias, tokens, ...projection }: SelfAttentionOptions = {},
): Tensor {
  const parts = queriesKeysValues(p, x, heads, projection);
  const mixed = mixTokens(p, parts, { heads, bias, tokens }); // [B, N, C]
  return linear(p.at("proj"), mixed, x.size(-1)); // [B, N, C]
}

export interface GroupedQueryOptions extends HeadOptions {
  /** The number of attention heads, which divide the channels evenly. */
  readonly heads: number;
  /** Heads of keys and values, which divide `heads`; each is shared by neighbouring heads of queries. */
  readonly keyHeads: number;
  /** Channels of a head. */
  readonly headSize: number;
  /** Scopes of the projections; transformers' `q_proj`, `k_proj`, `v_proj` and `o_proj` by default. */
  readonly names?: readonly [q: string, k: string, v: string, output: string];
  /** True if all four projections have a bias; false by default. */
  readonly projectionBias?: boolean;
  /** Added to the scores, broadcastable to [B, heads, N, N]. */
  readonly bias?: Tensor | undefined;
}

/** Grouped-query attention over all tokens (Ainslie et al., 2023): [B, N, C] → [B, N, C]. */
export function groupedQueryAttention(
  p: Params,
  x: Tensor,
  {
    heads,
    keyHeads,
    headSize,
    names: [qName, kName, vName, outputName] = ["q_proj", "k_proj", "v_proj", "o_proj"],
    projectionBias = false,
    bias,
    ...options
  }: GroupedQueryOptions,
): Tensor {
  const projected = (name: string, count: number) =>
    linear(p.at(name), x, count * headSize, { bias: projectionBias });
  const [own, v] = [projected(kName, keyHeads), projected(vName, keyHeads)]; // 2 × [B, N, keyHeads·D]
  const [q, k] = preparedHeads(p, [projected(qName, heads), own], headSize, options);
  const shared = (y: Tensor) => repeatHeads(y, headSize, heads / keyHeads); // [B, N, heads·D]
  const mixed = mixTokens(p, [q, shared(k), shared(v)], { heads, bias }); // [B, N, heads·D]
  return linear(p.at(outputName), mixed, x.size(-1), { bias: projectionBias });
}

/** Repeats each head: [B, N, heads·size] → [B, N, heads·times·size], copies of a head side by side. */
function repeatHeads(x: Tensor, size: number, times: number): Tensor {
  if (times === 1) return x;
  const [rows, tokens] = [x.dim(0), x.dim(1)];
  const heads = x.size(2) / size;
  const copies = x
    .reshape([rows, tokens, heads, 1, size])
    .expand([rows, tokens, heads, times, size]);
  return copies.reshape([rows, tokens, heads * times * size]);
}

export interface CrossAttentionOptions extends Omit<AttentionOptions, "scale" | "tokens"> {
  /** True if the projections to q, k and v have a bias; true by default. */
  readonly qkvBias?: boolean;
  /** Channels of a head; by default the heads share those of x. */
  readonly headSize?: number;
  /** Initial value of the output projection's weight. */
  readonly outputInit?: LinearOptions["init"];
}

/**
 * Attention of x [B, N, C] to a context [B, M, D], which may be x itself, with one projection for each of q, k and v.
 *
 * Parameters have diffusers' names `to_q`, `to_k`, `to_v` and `to_out.0`.
 *
 * @returns [B, N, C]
 */
export function crossAttention(
  p: Params,
  x: Tensor,
  context: Tensor,
  options: CrossAttentionOptions,
): Tensor {
  const { qkvBias = true, headSize, outputInit, ...rest } = options;
  const width = headSize ? options.heads * headSize : x.size(-1);
  const q = linear(p.at("to_q"), x, width, { bias: qkvBias }); // [B, N, width]
  const k = linear(p.at("to_k"), context, width, { bias: qkvBias }); // [B, M, width]
  const v = linear(p.at("to_v"), context, width, { bias: qkvBias }); // [B, M, width]
  const mixed = mixTokens(p, [q, k, v], rest); // [B, N, width]
  return linear(p.at("to_out.0"), mixed, x.size(-1), outputInit && { init: outputInit }); // [B, N, C]
}

/**
 * Linear self-attention (Katharopoulos et al., 2020) with ReLU kernels, as in Sana; see `linearMixing`: [B, N, C] → [B, N, C].
 * Parameters have diffusers' names.
 */
export function linearAttention(
  p: Params,
  x: Tensor,
  { heads, qkvBias = true }: { readonly heads: number; readonly qkvBias?: boolean },
): Tensor {
  const width = x.size(-1);
  const size = width / heads;
  const headsOf = (name: string) =>
    linear(p.at(name), x, width, { bias: qkvBias })
      .reshape([x.dim(0), x.dim(1), heads, size])
      .swapAxes(1, 2); // [B, heads, N, D]
  const mixed = linearMixing([headsOf("to_q"), headsOf("to_k"), headsOf("to_v")]); // [B, heads, N, D]
  return linear(p.at("to_out.0"), mixed.swapAxes(1, 2).reshape(x.shape), width);
}

/**
 * A mask of keys, [B, M] bool with true for tokens that are attended to, as a bias of the scores, [B, 1, 1, M].
 *
 * Masked keys get −10⁴, which float16 can represent and after which a softmax gives exactly 0.
 */
export function maskBias(mask: Tensor): Tensor {
  return where(mask, full([], 0), full([], -10_000)).reshape([mask.dim(0), 1, 1, mask.dim(1)]);
}

/** The causal mask as a bias [1, 1, L, L]: −10⁴, after which a softmax gives exactly 0, for later tokens. */
export function causalBias(length: number): Tensor {
  const data = new Float32Array(length * length);
  for (let row = 0; row < length; row++)
    data.fill(-10_000, row * length + row + 1, (row + 1) * length);
  return constant({ dtype: "float32", shape: [1, 1, length, length], data });
}
