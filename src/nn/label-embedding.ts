/** Class labels as vectors, with a class that stands for none (Ho & Salimans, 2022). */
import { constantOf, where } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { type Init, normal, type Params } from "./params.ts";

export interface Labels {
  /** Number of classes, from 0. */
  readonly classes: number;
  /** Whether the table has one more row, index `classes`, for an image without class. */
  readonly nullClass: boolean;
}

/**
 * Labels [B] → [B, hidden] by a table (name `weight`).
 *
 * @param drop [B] bool: where true, the null class takes the label's place
 */
export function embedLabels(
  p: Params,
  labels: Tensor,
  hidden: number,
  { classes, nullClass }: Labels,
  drop?: Tensor,
  init: Init = normal(0.02),
): Tensor {
  const rows = nullClass ? classes + 1 : classes;
  const table = p.param("weight", [rows, hidden], init);
  const kept = drop ? where(drop, constantOf([classes], [], labels.dtype), labels) : labels;
  return table.gather(kept);
}
