/**
 * Layers: functions on scopes of parameters, from which models are built. The path of a scope is the key in a checkpoint.
 *
 * @example
 * const params = createParams();
 * const hidden = linear(params.at("in"), input("x", [batch, 4]), 32).gelu();
 * const output = linear(params.at("out"), hidden, 2);
 * const weights = initialize(params, randomKey(0)); // "in.weight", "in.bias", "out.weight", "out.bias"
 */
export {
  crossAttention,
  type CrossAttentionOptions,
  groupedQueryAttention,
  type GroupedQueryOptions,
  selfAttention,
  type SelfAttentionOptions,
  type AttentionOptions,
  type HeadOptions,
  type ProjectionOptions,
} from "./attention.ts";
export type { OpenRoute, TokenRoute } from "./token-route.ts";
export type { PatchPlace } from "./mixing-parts.ts";
export { type MixedTokens, mixedTokens, type TokenMixing } from "./token-mixing.ts";
export { type Block, type BlockOptions, blockScopes, runBlocks, type Streams } from "./blocks.ts";
export {
  type Condition,
  type ConditionedInputs,
  embedLabels,
  embedText,
  embedTokens,
  givenCondition,
  tokenLogits,
  type Labels,
  type TextOptions,
  type TextTokens,
} from "./conditioning.ts";
export { conv2d } from "./convolutions.ts";
export { linear, type LinearOptions } from "./linear.ts";
export { attentionAndMlp, isLora, type LoraOptions, withLora } from "./lora.ts";
export { type FeedForward, feedForward, gatedMlp, type GatedMlpOptions, mlp } from "./mlp.ts";
export { gated, modulate, modulation, type ModulationOptions } from "./modulation.ts";
export { groupNorm, norm, type Norm } from "./norm.ts";
export {
  createParams,
  type Declared,
  type Init,
  initialize,
  normal,
  one,
  type Params,
  type ParamsRoot,
  xavierUniform,
  zero,
  type Buffered,
} from "./params.ts";
export {
  type PatchEmbedding,
  patchEmbedding,
  patchify,
  unpatchify,
  type Axes,
  type PatchOrder,
} from "./patches.ts";
export {
  type RotaryOptions,
  type RotaryPairing,
  type RotaryTable,
  rotaryTable,
  rotaryTableOf,
  rotate,
  sinCosTable,
} from "./positions.ts";
export { type Tapped, withTaps } from "./taps.ts";
export { embedTime, timestepEmbedding } from "./timestep-embedding.ts";
export type { Refuse } from "./transformer-schema.ts";
