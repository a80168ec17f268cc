/** The condition of a Paella that is trained by this library. */
import type { Tensor } from "../../engine/graph/tensor.ts";
import {
  type Condition,
  type ConditionedInputs,
  embedLabels,
  givenCondition,
  keptText,
} from "../../nn/conditioning.ts";
import { normal, type Params } from "../../nn/params.ts";

/** Embeds the condition in place of ByT5's tokens, [B, L, textWidth]. */
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
      const table = p.at("classes");
      return embedLabels(table, labels, textWidth, condition, drop, normal(1)).unsqueeze(1);
    }
    case "text": {
      const text = givenCondition(y, condition, "Paella");
      const { tokens, mask: kept } = keptText(p, text, { mask, drop });
      return kept ? tokens.mul(kept.cast("float32").unsqueeze(-1)) : tokens;
    }
  }
}
