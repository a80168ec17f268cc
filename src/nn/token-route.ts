/**
 * Training on a part of the tokens: between two blocks some patches are left out of the sequence, which costs nothing for them. Behind
 * the last of these blocks they are put back as they were (TREAD, Krause et al., 2025), or as a learned token that knows nothing of
 * them (MDT, Gao et al., 2023; MaskDiT, Zheng et al., 2024).
 */
import { concat } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import type { RotaryTable } from "./positions.ts";

/** The patches that some blocks see. */
export interface TokenRoute {
  /** The patches that stay, by their places from 0 and without repetition, [B, kept] int64. */
  readonly kept: Tensor;
  /** The first block that sees only these, from 0. */
  readonly from: number;
  /** The first block behind it that sees all patches again. */
  readonly to: number;
  /** What takes the places of the others behind these blocks, [C]; themselves as they were unless given. */
  readonly filler?: Tensor | undefined;
}

/** A route over a sequence of `patches` patches and then tokens of other kinds, which always stay. */
export interface OpenRoute {
  /** Returns true for the blocks that see only some patches. */
  within(block: number): boolean;
  /** The rows that stay: [B, N + M, C] → [B, kept + M, C]. */
  enter(rows: Tensor): Tensor;
  /** Puts the others back: the tokens before the first block and behind the last → [B, N + M, C]. */
  leave(before: Tensor, after: Tensor): Tensor;
  /** The angles of the rows that stay. */
  angles(table: RotaryTable): RotaryTable;
}

/** Opens a route. Rows are chosen by products with matrices of zeros and ones, whose gradients are such products too. */
export function openRoute({ kept, from, to, filler }: TokenRoute, patches: number): OpenRoute {
  const choiceOf = ({ dtype }: Tensor) => kept.oneHot(patches, dtype); // [B, kept, N]
  const count = kept.size(1);
  const withRest = (chosen: Tensor, rows: Tensor, at: number) =>
    rows.size(1) > at ? concat([chosen, rows.slice(1, at)], 1) : chosen;
  const enter = (rows: Tensor) =>
    withRest(choiceOf(rows).matmul(rows.slice(1, 0, patches)), rows, patches); // [B, kept + M, C]
  return {
    within: (block) => from <= block && block < to,
    enter,
    leave(before, after) {
      const choice = choiceOf(after);
      const staying = choice.sum(1).unsqueeze(2); // [B, N, 1]
      const back = choice.matmul(after.slice(1, 0, count), { transposeA: true }); // [B, N, C]
      const others = filler ?? before.slice(1, 0, patches);
      return withRest(back.add(others.mul(staying.neg().add(1))), after, count);
    },
    angles({ cos, sin, pairing }) {
      const chosen = (table: Tensor) => {
        const [rows, , turning] = table.shape as readonly [number, 1, number];
        const all = table.reshape([1, rows, turning]).expand([kept.dim(0), rows, turning]);
        return enter(all).unsqueeze(2); // [B, kept + M, 1, size / 2]
      };
      return { cos: chosen(cos), sin: chosen(sin), pairing };
    },
  };
}
