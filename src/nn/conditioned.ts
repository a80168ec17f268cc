/** What a network that denoises is given, and may be told of what it draws. */
import { ShapeError } from "../engine/errors.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import type { Labels } from "./label-embedding.ts";

/** What the model draws: anything, one of some classes, or a text given as embeddings of its tokens. */
export type Condition =
  | { readonly kind: "none" }
  | ({ readonly kind: "class" } & Labels)
  | { readonly kind: "text"; readonly width: number; readonly length: number };

export interface ConditionedInputs {
  /** [B, channels, height, width] */
  readonly x: Tensor;
  /** Time steps [B] in [0, 1000), float32. */
  readonly t: Tensor;
  /** Classes [B], integers, or a text [B, length, width]. */
  readonly y?: Tensor | undefined;
  /** Which tokens of a text count, [B, length] bool; all unless given. */
  readonly mask?: Tensor | undefined;
  /** Whose condition is left out, [B] bool; nobody's unless given. */
  readonly drop?: Tensor | undefined;
}

/** @throws ShapeError when a network that is told something is not */
export function givenCondition(
  y: Tensor | undefined,
  { kind }: { readonly kind: string },
  network: string,
): Tensor {
  if (y) return y;
  throw new ShapeError(`This ${network} is conditioned on a ${kind}; give it as \`y\`.`);
}
