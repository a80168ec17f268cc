/**
 * Every network that denoises, by the kind that its config names, traced with what conditions it: one place that
 * training, pipelines and counting share.
 */
import { z } from "zod";
import { input } from "../engine/graph/functional.ts";
import type { DType } from "../engine/arrays/dtype.ts";
import { batch, type Shape } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { timeScale } from "../diffusion/recipe.ts";
import { embedTokens, tokenLogits } from "../nn/conditioning.ts";
import { createParams, type Params, type ParamsRoot } from "../nn/params.ts";
import { withTaps } from "../nn/taps.ts";
import { ddpmUNet, type DDPMUNetConfig, ddpmUNetPresets } from "./ddpm-unet/ddpm-unet.ts";
import { ddpmUNetSchema } from "./ddpm-unet/schema.ts";
import { dit, type DiTConfig, ditPresets } from "./dit/dit.ts";
import { ditSchema } from "./dit/schema.ts";
import {
  embedCondition,
  mmdit,
  type MMDiTConfig,
  mmditPresets,
  type MMDiTTold,
} from "./mmdit/mmdit.ts";
import { mmditSchema } from "./mmdit/schema.ts";
import { paella } from "./paella/paella.ts";
import { paellaSchema, paellaText } from "./paella/schema.ts";
import { promptEncoder, type PromptEncoderConfig } from "./text-encoders/prompt-encoder.ts";
import { promptEncoderSchema } from "./text-encoders/prompt-encoder-schema.ts";
import { uViT, type UViTConfig, uViTPresets } from "./u-vit/u-vit.ts";
import { uViTSchema } from "./u-vit/schema.ts";

export {
  type AutoencoderKLConfig,
  autoencoderKLPresets,
  decodeLatents,
  encodeImages,
} from "./coders/autoencoder-kl.ts";
export {
  ddpmUNet,
  type DDPMUNetConfig,
  type DDPMUNetInputs,
  ddpmUNetPresets,
} from "./ddpm-unet/ddpm-unet.ts";
export { dit, type DiTConfig, type DiTInputs, ditPresets } from "./dit/dit.ts";
export { mmdit, type MMDiTConfig, type MMDiTInputs, mmditPresets } from "./mmdit/mmdit.ts";
export { paella, type PaellaConfig, type PaellaInputs, paellaPresets } from "./paella/paella.ts";
export {
  paellaV1,
  type PaellaV1Config,
  type PaellaV1Inputs,
  paellaV1Presets,
} from "./paella/paella-v1.ts";
export { uViT, type UViTConfig, type UViTInputs, uViTPresets } from "./u-vit/u-vit.ts";
export {
  decodeQuantized,
  decodeTokens,
  type EncodedTokens,
  encodeTokens,
  type VQGANConfig,
  vqganPresets,
} from "./coders/vqgan.ts";

/** Whether what stands beside a network fits it. */
function checkBeside(
  {
    condition,
    prompt,
    tokens,
    learnedVariance,
  }: {
    readonly tokens?: object | undefined;
    readonly learnedVariance: boolean;
    readonly condition: (DiTConfig | MMDiTConfig | UViTConfig | DDPMUNetConfig)["condition"];
    readonly prompt?: PromptEncoderConfig | undefined;
  },
  context: z.core.$RefinementCtx,
): void {
  const refuse = (message: string, field = "prompt") =>
    context.addIssue({ code: "custom", path: [field], message });
  if (tokens && learnedVariance) refuse("tokens have no variance; leave it out", "learnedVariance");
  if (!prompt) return;
  if (condition.kind !== "text") {
    refuse(`a prompt encoder needs a text condition, but the condition is ${condition.kind}`);
  } else if (prompt.width !== condition.width || prompt.length !== condition.length) {
    refuse(
      `the prompt encoder gives ${prompt.length} tokens of width ${prompt.width}, but the condition is ${condition.length} of ${condition.width}`,
    );
  } else if ("pooled" in condition && condition.pooled !== undefined) {
    refuse("a prompt encoder gives no pooled text, which this network takes beside the tokens");
  }
}

const beside = {
  /** What reads the text that the network is told, and is trained with it. */
  prompt: promptEncoderSchema.optional(),
  /**
   * Where it is shown tokens of a codebook in place of numbers: each becomes a vector of as many channels as the network has,
   * and what the network says of a place becomes a logit for each code.
   */
  tokens: z.strictObject({ codebook: z.int().min(2) }).optional(),
};

export const networkSchema = z.discriminatedUnion("kind", [
  ditSchema.safeExtend(beside).superRefine(checkBeside),
  mmditSchema.safeExtend(beside).superRefine(checkBeside),
  uViTSchema.safeExtend(beside).superRefine(checkBeside),
  ddpmUNetSchema.safeExtend(beside).superRefine(checkBeside),
  // It has a table of tokens and a head of its own.
  paellaSchema.safeExtend({ ...beside, tokens: beside.tokens.unwrap() }).superRefine(checkBeside),
]);

export type NetworkConfig = z.output<typeof networkSchema>;

/** Published sizes, by name. */
export const networkPresets: ReadonlyMap<string, NetworkConfig> = new Map([
  ...Object.entries<DiTConfig>(ditPresets).map(([name, config]) => {
    return [name, { kind: "dit", ...config }] as const;
  }),
  ...Object.entries<MMDiTConfig>(mmditPresets).map(([name, config]) => {
    return [name, { kind: "mmdit", ...config }] as const;
  }),
  ...Object.entries<UViTConfig>(uViTPresets).map(([name, config]) => {
    return [name, { kind: "u-vit", ...config }] as const;
  }),
  ...Object.entries<DDPMUNetConfig>(ddpmUNetPresets).map(([name, config]) => {
    return [name, { kind: "ddpm-unet", ...config }] as const;
  }),
] as readonly (readonly [string, NetworkConfig])[]);

/** Where the prompt encoder's weights are among the network's. */
export const promptScope = "prompt_encoder";

/** Where the table of tokens and the head of their logits are. */
const tokenScope = "tokens";

/** A network as a graph. */
export interface TracedNetwork {
  readonly params: ParamsRoot;
  /**
   * `x` [B, C, H, W], or tokens [B, H, W], and `t` [B]; by its condition `y` [B], `ids` and `mask` [B, L], or what encoders give: `context`
   * [B, L, width] and `pooled` [B, pooled]; `drop` and `skip` [B] where they were asked for.
   */
  readonly inputs: Readonly<Record<string, Tensor>>;
  /** [B, C, H, W] with a variance behind it where that is learned, or logits [B, codebook, H, W]. */
  readonly output: Tensor;
  /** Patches of an image; 0 of a U-Net, which has none. */
  readonly tokens: number;
  /** The intermediate tensors that `taps` asked for, by name. */
  readonly taps: Readonly<Record<string, Tensor>>;
}

export interface TraceOptions {
  /** Height and width; those of the config unless given. */
  readonly size?: readonly [height: number, width: number] | undefined;
  /** Whether an input `drop` [B] bool says whose condition is left out. */
  readonly drop?: boolean;
  /** Computes each block again in the backward pass instead of keeping its activations. */
  readonly recompute?: boolean;
  /** Layers that the rows pass unchanged for which an input `skip` [B] bool says so; fewer than `skippableLayers`. */
  readonly skippable?: readonly number[];
  /** In place of the inputs `x` and `t`. */
  readonly from?: { readonly x: Tensor; readonly t: Tensor };
  /** Intermediate tensors to return, such as "blocks.0.attn.probabilities" or "blocks.*.output"; see `withTaps`. */
  readonly taps?: readonly string[] | undefined;
}

/**
 * Traces a network; `params` may be given to trace it again on the same weights.
 *
 * @throws UsageError when `taps` asks for a tensor that the network does not have
 */
export function traceNetwork(
  config: NetworkConfig,
  {
    size = config.size,
    drop: drops = false,
    recompute = false,
    skippable = [],
    from,
    taps = [],
  }: TraceOptions = {},
  root: ParamsRoot = createParams(),
): TracedNetwork {
  const tapped = withTaps(root, taps);
  const { params } = tapped;
  const seen = from?.x ?? input("x", ...networkInput(config, size));
  const own = params.at(tokenScope);
  const wrapped = config.kind === "paella" ? undefined : config.tokens;
  const x = wrapped ? embedTokens(own, seen, config.channels, wrapped.codebook) : seen;
  const t = from?.t ?? input("t", [batch]);
  const drop = drops ? { drop: input("drop", [batch], "bool") } : {};
  const skip = skippable.length > 0 ? { skip: input("skip", [batch], "bool") } : {};
  const given = conditionInputs(config);
  const told = { ...heard(params, given, config), ...drop };
  const output = outputOf();
  return {
    params: root,
    taps: tapped.taps(),
    inputs: { ...(from ? {} : { x: seen, t }), ...given, ...drop, ...skip },
    output: wrapped ? tokenLogits(own, output, wrapped.codebook) : output,
    tokens: tokensOf(config, size),
  };

  function outputOf(): Tensor {
    switch (config.kind) {
      case "dit":
        return dit(params, { x, t, ...told }, config, { recompute });
      case "u-vit":
        return uViT(params, { x, t, ...told }, config, { recompute });
      case "ddpm-unet":
        return ddpmUNet(params, { x, t, ...told }, config, { recompute });
      case "paella": {
        const text = paellaText(params.at("told"), { t, ...told }, config);
        const { codebook } = config.tokens;
        const whole = { ...config, codebook, clipWidth: 0, clipTokens: 0 };
        return paella(params, { tokens: seen, share: t.div(timeScale), text }, whole);
      }
      case "mmdit": {
        const inputs = { x, t, ...embedCondition(params, told, config), ...skip };
        return mmdit(params, inputs, config, { recompute, skippable });
      }
    }
  }
}

/** Patches of an image. */
function tokensOf(config: NetworkConfig, [height, width]: readonly [number, number]): number {
  return config.kind === "ddpm-unet" ? 0 : (height / config.patch) * (width / config.patch);
}

/** Shape and type of what a network is shown. */
export function networkInput(
  { channels, tokens, size: own }: NetworkConfig,
  size: readonly [height: number, width: number] = own,
): readonly [shape: Shape, dtype: DType] {
  return tokens ? [[batch, ...size], "int64"] : [[batch, channels, ...size], "float32"];
}

function conditionInputs({ condition, prompt }: NetworkConfig): Record<string, Tensor> {
  switch (condition.kind) {
    case "none":
      return {};
    case "class":
      return { y: input("y", [batch], "int64") };
    case "text": {
      const { length, width } = condition;
      if ("pooled" in condition && condition.pooled !== undefined) {
        return {
          context: input("context", [batch, length, width]),
          pooled: input("pooled", [batch, condition.pooled]),
        };
      }
      const mask = input("mask", [batch, length], "bool");
      return prompt
        ? { ids: input("ids", [batch, length], "int64"), mask }
        : { y: input("y", [batch, length, width]), mask };
    }
  }
}

/** What a network is told, after its prompt encoder has read it. */
function heard(
  params: Params,
  { ids, ...given }: Readonly<Record<string, Tensor>>,
  { prompt }: NetworkConfig,
): MMDiTTold {
  if (!prompt || !ids) return given;
  return { ...given, y: promptEncoder(params.at(promptScope), ids, given["mask"]!, prompt) };
}

/** Whether a network can be asked without its condition, which guidance needs. */
export function canDrop({ condition }: NetworkConfig): boolean {
  return condition.kind === "text" || (condition.kind === "class" && condition.nullClass);
}

/** Layers that rows may skip, as skip-layer guidance asks; numbered from 0. */
export function skippableLayers(network: NetworkConfig): number {
  return network.kind === "mmdit" ? network.depth : 0;
}

/** Which images a network can draw, by their height and width. */
export interface ImageSizes {
  /** Each is a multiple of it. */
  readonly unit: number;
  /** The most of each; any unless given. */
  readonly most?: number;
  /** Whether it draws in its config's size alone, whose places it has learned. */
  readonly fixed: boolean;
}

export function imageSizes(network: NetworkConfig): ImageSizes {
  switch (network.kind) {
    case "dit":
      return { unit: network.patch, fixed: network.positions.kind === "learned" };
    case "mmdit":
      return { unit: network.patch, most: network.positions.max * network.patch, fixed: false };
    case "u-vit":
      return { unit: network.patch, fixed: true };
    case "ddpm-unet":
      return { unit: 2 ** (network.multipliers.length - 1), fixed: false };
    case "paella":
      return { unit: network.patch * 2 ** (network.levels.length - 1), fixed: false };
  }
}
