/** Stable Diffusion 3 put together of its parts, wherever they lie. */
import { UsageError } from "../../../engine/errors.ts";
import { nearestNames } from "../../../engine/messages.ts";
import type { EncodedMMDiTConfig } from "../../../models/mmdit/checkpoint.ts";
import { quote } from "../../../engine/messages.ts";
import type { ImageModel } from "../../image-model.ts";
import type { OpenModelOptions } from "../open-options.ts";
import {
  CLIP_TOKENS,
  sd3Embedder,
  type SD3EncoderName,
  sd3EncoderNames,
  type SD3Encoders,
} from "./prompt.ts";

/** As many tokens as T5 was trained on; diffusers takes no more either. */
const MOST_TOKENS = 512;

export interface SD3Network extends Omit<ImageModel, "embedder" | "network"> {
  readonly network: EncodedMMDiTConfig & { readonly kind: "mmdit" };
}

export interface SD3Texts {
  readonly encoders: SD3Encoders;
  /** Tokens of T5, where it is not left out. */
  readonly promptTokens: number;
  /** As `SD3Text`. */
  readonly projectedL: boolean;
}

/** @throws UsageError when T5 cannot read so many tokens; FormatError when the encoders do not fit the network */
export function sd3Model(
  { network, ...parts }: SD3Network,
  { encoders, promptTokens, projectedL }: SD3Texts,
): ImageModel {
  const { condition } = network;
  if (!Number.isInteger(promptTokens) || promptTokens < 1 || promptTokens > MOST_TOKENS) {
    throw new UsageError(
      `T5 cannot read ${promptTokens} tokens of a prompt; give a whole number from 1 to ${MOST_TOKENS}.`,
    );
  }
  // Without it there are zeros, as many as a CLIP has tokens: so diffusers has it.
  const t5Tokens = encoders.t5 ? promptTokens : CLIP_TOKENS;
  const text = { width: condition.width, pooled: condition.pooled, t5Tokens, projectedL };
  return {
    ...parts,
    network: { ...network, condition: { ...condition, length: CLIP_TOKENS + t5Tokens } },
    embedder: sd3Embedder(encoders, text),
  };
}

/**
 * The text encoders that are not to be done without.
 *
 * @throws UsageError when one to do without does not exist
 */
export function wantedEncoders({ without = [] }: OpenModelOptions): readonly SD3EncoderName[] {
  for (const name of without) {
    if (sd3EncoderNames.some((known) => known === name)) continue;
    const near = nearestNames(name, sd3EncoderNames);
    throw new UsageError(
      `Stable Diffusion 3 has no text encoder ${quote(name)} to do without; ${near.length > 0 ? "the nearest are" : "it has"} ${(near.length > 0 ? near : sd3EncoderNames).join(", ")}.`,
    );
  }
  return sd3EncoderNames.filter((name) => !without.includes(name));
}
