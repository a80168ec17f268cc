/**
 * A prior (Ramesh et al., 2022, "Hierarchical text-conditional image generation with CLIP latents", section 2.2): from a prompt, it
 * predicts the code of the picture that is asked for, and the network that it conditions draws the picture from the code.
 *
 * The text decides on a subject, a style, a colour and a companion, each by a softmax. A table holds the codes of every subject in
 * every style; one small network changes the colour of a code, another adds the companion to it. So the words cost nothing in image
 * compute, and what they mean can be trained apart from how it is drawn.
 */
import * as z from "zod";
import { concat } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { linear } from "../../nn/linear.ts";
import { mlp } from "../../nn/mlp.ts";
import { normal, type Params } from "../../nn/params.ts";
import { count } from "../../nn/transformer-schema.ts";

export const promptPriorSchema = z.strictObject({
  /** Width of a code. */
  code: count,
  /** The number of subjects. */
  subjects: count,
  /** The number of drawing styles. */
  styles: count,
  /** The number of colours. */
  colours: count,
  /** Width of the networks that change a code. */
  hidden: count,
  /** False for a prior that knows no second thing beside the subject; true unless given. */
  companions: z.boolean().optional(),
  /** The number of motions, whose shares follow the code; none unless given. */
  motions: count.optional(),
});

export type PromptPriorConfig = z.output<typeof promptPriorSchema>;

/** The width of what a prior gives: a code, and the shares of the motions. */
export function priorWidth({ code, motions = 0 }: PromptPriorConfig): number {
  return code + motions;
}

/** Logits of the subject, style, colour, companion and motion that a prompt asks for. */
export interface PromptChoices {
  /** [B, subjects] */
  readonly subject: Tensor;
  /** [B, styles] */
  readonly style: Tensor;
  /** [B, 1 + colours], of which the first is the subject's own colour. */
  readonly colour: Tensor;
  /** [B, 1 + subjects], of which the first is none; undefined if there are no companions. */
  readonly companion?: Tensor;
  /** [B, motions]; undefined if there are none. */
  readonly motion?: Tensor;
}

/** Multiplies logits, so that drawings show one subject and no blend of those that a word could mean. */
const SHARPNESS = 20;

/**
 * Reads the choices out of an encoded text, each by attention with a query of its own.
 *
 * @param tokens [B, L, C]
 * @param mask [B, L] bool, false for padding
 */
export function promptChoices(
  p: Params,
  tokens: Tensor,
  mask: Tensor,
  { subjects, styles, colours, companions = true, motions }: PromptPriorConfig,
): PromptChoices {
  const sizes = {
    subject: subjects,
    style: styles,
    colour: 1 + colours,
    ...(companions && { companion: 1 + subjects }),
    ...(motions !== undefined && { motion: motions }),
  };
  const padding = mask.not().cast("float32").mul(-1e9).unsqueeze(-1); // [B, L, 1]
  const logits = Object.entries(sizes).map(([name, size]) => {
    const own = p.at(name);
    const weights = linear(own.at("query"), tokens, 1).add(padding).softmax(1); // [B, L, 1]
    const pooled = tokens.mul(weights).sum(1); // [B, C]
    const chosen = linear(own.at("head"), pooled, size);
    own.tap("shares", sharp(chosen));
    return [name, chosen] as const;
  });
  return Object.fromEntries(logits) as Record<keyof typeof sizes, Tensor>;
}

/** The code of what was chosen, and the shares of the motions: [B, 1, code + motions]. */
export function chosenCode(
  p: Params,
  { subject, style, colour, companion, motion }: PromptChoices,
  { code, subjects, styles, colours, hidden }: PromptPriorConfig,
): Tensor {
  const table = p.param("codes", [subjects, styles * code], normal(1));
  const inStyle = sharp(style).unsqueeze(-1); // [B, styles, 1]
  const codeOf = (shares: Tensor) =>
    shares
      .matmul(table)
      .reshape([shares.dim(0), styles, code])
      .mul(inStyle)
      .sum(1); // [B, code]
  const own = codeOf(sharp(subject));
  const [plain, changed] = parted(colour, colours);
  const coloured = mix(plain, own, changedCode(p.at("recolour"), own, changed, hidden));
  const accompanied = () => {
    if (!companion) return coloured;
    const [alone, others] = parted(companion, subjects);
    // Sums to one wherever a companion is asked for, and is not looked at elsewhere.
    const added = codeOf(others.div(alone.neg().add(1 + 1e-6)));
    return mix(alone, coloured, changedCode(p.at("compose"), coloured, added, hidden));
  };
  const chosen = accompanied();
  return (motion ? concat([chosen, sharp(motion)], 1) : chosen).unsqueeze(1);
}

/** The code [B, code] of a picture in other colours `by` [B, colours], or with the picture of another code beside it. */
export function changedCode(p: Params, code: Tensor, by: Tensor, hidden: number): Tensor {
  const both = concat([code, by], 1);
  const width = code.size(1);
  return code
    .add(linear(p.at("linear"), both, width))
    .add(mlp(p.at("mlp"), both, hidden, "tanh", width));
}

function sharp(logits: Tensor): Tensor {
  return logits.mul(SHARPNESS).softmax(-1);
}

/** The share of the first choice [B, 1], and those of the others [B, others]. */
function parted(logits: Tensor, others: number): readonly [Tensor, Tensor] {
  const shares = sharp(logits);
  return [shares.slice(1, 0, 1), shares.slice(1, 1, others + 1)];
}

function mix(share: Tensor, one: Tensor, other: Tensor): Tensor {
  return one.mul(share).add(other.mul(share.neg().add(1)));
}
