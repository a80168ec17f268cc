/**
 * Every network that denoises, by the kind that its config names, traced with what conditions it: one place that
 * training, pipelines and counting share.
 */
import { z } from "zod";
import { input } from "../engine/functional.ts";
import { batch } from "../engine/shape.ts";
import type { Tensor } from "../engine/tensor.ts";
import { patchGrid } from "../nn/patch-embedding.ts";
import { createParams, type ParamsRoot } from "../nn/params.ts";
import { dit } from "./dit.ts";
import { ditSchema } from "./dit-schema.ts";
import { promptEncoder } from "./prompt-encoder.ts";
import { promptEncoderSchema } from "./prompt-encoder-schema.ts";

export {
  type AutoencoderKLConfig,
  autoencoderKLPresets,
  decodeLatents,
  encodeImages,
} from "./autoencoder-kl.ts";
export { dit, type DiTConfig, type DiTInputs, ditPresets } from "./dit.ts";

/** A DiT, whose text, if it is told one, comes from a prompt encoder that is trained with it. */
const ditNetwork = ditSchema
  .safeExtend({ prompt: promptEncoderSchema.optional() })
  .superRefine(({ condition, prompt }, context) => {
    const refuse = (message: string) =>
      context.addIssue({ code: "custom", path: ["prompt"], message });
    if (prompt && condition.kind !== "text") {
      refuse(`a prompt encoder needs a text condition, but the condition is ${condition.kind}`);
    } else if (
      prompt &&
      condition.kind === "text" &&
      (prompt.width !== condition.width || prompt.length !== condition.length)
    ) {
      refuse(
        `the prompt encoder gives ${prompt.length} tokens of width ${prompt.width}, but the condition is ${condition.length} of ${condition.width}`,
      );
    }
  });

export const networkSchema = z.discriminatedUnion("kind", [ditNetwork]);

export type NetworkConfig = z.output<typeof networkSchema>;

/** Where the prompt encoder's weights are among the network's. */
export const promptScope = "prompt_encoder";

/** A network as a graph. */
export interface TracedNetwork {
  readonly params: ParamsRoot;
  /** `x` [B, C, H, W] and `t` [B]; by its condition `y` [B] or `ids` and `mask` [B, L]; `drop` [B] where it was asked for. */
  readonly inputs: Readonly<Record<string, Tensor>>;
  readonly output: Tensor;
  /** Patches of an image. */
  readonly tokens: number;
}

export interface TraceOptions {
  /** Height and width; those of the config unless given. */
  readonly size?: readonly [height: number, width: number] | undefined;
  /** Whether an input `drop` [B] bool says whose condition is left out. */
  readonly drop?: boolean;
  /** Computes each block again in the backward pass instead of keeping its activations. */
  readonly recompute?: boolean;
  /** In place of the inputs `x` and `t`. */
  readonly from?: { readonly x: Tensor; readonly t: Tensor };
}

/** Traces a network; `params` may be given to trace it again on the same weights. */
export function traceNetwork(
  config: NetworkConfig,
  { size = config.size, drop: drops = false, recompute = false, from }: TraceOptions = {},
  params: ParamsRoot = createParams(),
): TracedNetwork {
  const { condition, prompt, channels, patch } = config;
  const x = from?.x ?? input("x", [batch, channels, ...size]);
  const t = from?.t ?? input("t", [batch]);
  const drop = drops ? { drop: input("drop", [batch], "bool") } : {};
  const given = conditionInputs(config);
  const told: { y?: Tensor; mask?: Tensor } =
    condition.kind === "text" && prompt
      ? {
          y: promptEncoder(params.at(promptScope), given["ids"]!, given["mask"]!, prompt),
          mask: given["mask"]!,
        }
      : given;
  const output = dit(params, { x, t, ...told, ...drop }, config, { recompute });
  const [rows, columns] = patchGrid(x, patch);
  return {
    params,
    inputs: { ...(from ? {} : { x, t }), ...given, ...drop },
    output,
    tokens: rows * columns,
  };
}

function conditionInputs({ condition, prompt }: NetworkConfig): Record<string, Tensor> {
  switch (condition.kind) {
    case "none":
      return {};
    case "class":
      return { y: input("y", [batch], "int64") };
    case "text": {
      const { length, width } = condition;
      const mask = input("mask", [batch, length], "bool");
      return prompt
        ? { ids: input("ids", [batch, length], "int64"), mask }
        : { y: input("y", [batch, length, width]), mask };
    }
  }
}

/** Whether a network can be asked without its condition, which guidance needs. */
export function canDrop({ condition }: NetworkConfig): boolean {
  return condition.kind === "text" || (condition.kind === "class" && condition.nullClass);
}
