/** What stored weights have in common, however they lie. */
import type { DType } from "../arrays/dtype.ts";
import type { StoredWeight } from "./backend.ts";

export interface WeightType {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

export function typeOfWeight(stored: StoredWeight): WeightType {
  switch (stored.kind) {
    case "array":
      return stored.array;
    case "file":
      return stored;
    case "rows": {
      const { dtype, shape } = typeOfWeight(stored.parts[0]!);
      const rows = stored.parts.reduce((sum, part) => sum + typeOfWeight(part).shape[0]!, 0);
      return { dtype, shape: [rows, ...shape.slice(1)] };
    }
  }
}

export type WeightPiece = Exclude<StoredWeight, { kind: "rows" }>;

/** The pieces in which a weight lies: itself, or its rows. */
export function piecesOfWeight(stored: StoredWeight): readonly WeightPiece[] {
  return stored.kind === "rows" ? stored.parts.flatMap(piecesOfWeight) : [stored];
}

/** The same weight with each of its pieces replaced. */
export function withPieces(
  stored: StoredWeight,
  replace: (piece: WeightPiece) => WeightPiece,
): StoredWeight {
  if (stored.kind !== "rows") return replace(stored);
  return { kind: "rows", parts: stored.parts.map((part) => withPieces(part, replace)) };
}
