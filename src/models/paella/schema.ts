/** The config of a Paella that is trained here, as it stands in files: told classes or texts in ByT5's place, and no CLIP. */
import { z } from "zod";
import {
  type Condition,
  type ConditionedInputs,
  embedLabels,
  givenCondition,
  keptText,
} from "../../nn/conditioning.ts";
import { normal, type Params } from "../../nn/params.ts";
import { conditionSchema, count, transformerFields } from "../../nn/transformer-schema.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";

const level = z.strictObject({
  width: count,
  /** Of its attention, where it has one. */
  heads: count,
  blocks: count,
  parts: z.string().regex(/^[CTAF]+$/, "a block is made of C, T, A and F, such as CTA"),
});

const { size, channels, patch, learnedVariance } = transformerFields;

export const paellaFields = {
  size,
  channels,
  learnedVariance,
  condition: conditionSchema,
  patch,
  shareWidth: z.int().min(4),
  conditionWidth: count,
  textWidth: count,
  levels: z.array(level).min(1).readonly(),
  kernel: count.refine((value) => value % 2 === 1, "a kernel has a middle, so its size is odd"),
  selfAttention: z.boolean(),
};

export const paellaSchema = z
  .strictObject({ kind: z.literal("paella"), ...paellaFields })
  .superRefine(({ size: sides, patch: places, learnedVariance: learned, ...rest }, context) => {
    const refuse = (field: string, message: string) =>
      context.addIssue({ code: "custom", path: [field], message });
    const { levels, condition, textWidth } = rest;
    const unit = places * 2 ** (levels.length - 1);
    if (sides.some((side) => side % unit !== 0)) {
      refuse(
        "levels",
        `${sides.join("×")} tokens cannot be made ${unit} times smaller, as ${levels.length} levels on patches of ${places} do; give fewer levels, or smaller patches`,
      );
    }
    const odd = levels.find(
      ({ width, heads, parts }) => parts.includes("A") && width % heads !== 0,
    );
    if (odd) refuse("levels", `${odd.heads} heads do not divide a width of ${odd.width}`);
    if (condition.kind === "text" && condition.width !== textWidth) {
      refuse(
        "textWidth",
        `the text is told in vectors of ${condition.width}, but textWidth is ${textWidth}; give the same`,
      );
    }
    if (learned) refuse("learnedVariance", "tokens have none; leave it out");
  });

/** What it is told as ByT5's tokens, [B, L, textWidth]. */
export function paellaText(
  p: Params,
  { t, y, mask, drop }: Omit<ConditionedInputs, "x">,
  { condition, textWidth }: { readonly condition: Condition; readonly textWidth: number },
): Tensor {
  switch (condition.kind) {
    case "none": {
      const rows = t.mul(0).reshape([t.dim(0), 1, 1]);
      return p.param("none", [1, 1, textWidth], normal(1)).add(rows);
    }
    case "class": {
      const labels = givenCondition(y, condition, "Paella");
      return embedLabels(p.at("classes"), labels, textWidth, condition, drop, normal(1)).unsqueeze(
        1,
      );
    }
    case "text": {
      const text = givenCondition(y, condition, "Paella");
      const { tokens, mask: counted } = keptText(p, text, { mask, drop });
      return counted ? tokens.mul(counted.cast("float32").unsqueeze(-1)) : tokens;
    }
  }
}
