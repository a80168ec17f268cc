/** Stored weights as initializers: whole, or where the graph only cuts one into rows, as ranges of its bytes. */
import { byteSize } from "../arrays/dtype.ts";
import { ShapeError } from "../errors.ts";
import type { Graph } from "../graph/graph.ts";
import { sizeOf } from "../arrays/ndarray.ts";
import type { StoredWeight } from "../runtime/backend.ts";
import { typeOfWeight } from "../runtime/stored-weight.ts";
import { formatShape, sameShape } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { readsOf, rowAxis } from "../passes/weight-rows.ts";
import type { Emitter } from "./emitter.ts";
import { dataTypes } from "./proto.ts";

/**
 * Emits a weight.
 *
 * @returns the names of the parameter and of its parts, as far as the graph uses them
 * @throws ShapeError when it has another shape than its parameter
 */
export function lowerWeight(
  name: string,
  parameter: Tensor,
  stored: StoredWeight,
  graph: Graph,
  emitter: Emitter,
): Map<Tensor, string> {
  const { shape, dtype } = typeOfWeight(stored);
  if (!sameShape(shape, parameter.shape)) {
    throw new ShapeError(
      `The stored weight ${name} is ${formatShape(shape)}, the model expects ${formatShape(parameter.shape)}.`,
    );
  }
  const { whole, cuts } = readsOf(parameter, graph);
  const emit = (as: string, part: StoredWeight): string => {
    if (part.kind === "rows") {
      const parts = part.parts.map((each, i) => emit(`${as}#${i}`, each));
      emitter.scope = parameter.node.scope;
      return emitter.emit("Concat", parts, { axis: 0 });
    }
    if (part.kind === "array") emitter.initializer(as, part.array);
    else emitter.external(as, part);
    if (dtype === parameter.dtype) return as;
    // bfloat16 and float16 checkpoints: stored as they are, read as the model computes.
    emitter.scope = parameter.node.scope;
    return emitter.emit("Cast", [as], { to: dataTypes[parameter.dtype] });
  };

  const names = new Map<Tensor, string>();
  if (whole) names.set(parameter, emit(name, stored));
  for (const [i, cut] of cuts.entries()) {
    for (const { output, start, rows } of cut) {
      const as = `${name}[${start}:${start + rows}]${cuts.length > 1 ? `#${i}` : ""}`;
      names.set(output, emit(as, rowsOfWeight(stored, rowAxis(shape), start, rows)));
    }
  }
  return names;
}

/** Rows of a weight, along the axis that has them, are a range of its bytes, or of those of its parts. */
function rowsOfWeight(
  stored: StoredWeight,
  axis: number,
  start: number,
  rows: number,
): StoredWeight {
  const { dtype, shape } = typeOfWeight(stored);
  if (stored.kind === "rows") {
    // What is 1 long has one part.
    return axis > 0
      ? rowsOfWeight(stored.parts[0]!, axis, start, rows)
      : rowsOfParts(stored.parts, start, rows);
  }
  const inRow = sizeOf(shape.slice(axis + 1));
  const part = [...shape.slice(0, axis), rows, ...shape.slice(axis + 1)];
  if (stored.kind === "array") {
    const data = stored.array.data.subarray(start * inRow, (start + rows) * inRow);
    return { kind: "array", array: { dtype, shape: part, data } };
  }
  const rowBytes = inRow * byteSize(dtype);
  return {
    ...stored,
    shape: part,
    offset: stored.offset + start * rowBytes,
    length: rows * rowBytes,
  };
}

function rowsOfParts(parts: readonly StoredWeight[], start: number, rows: number): StoredWeight {
  const found: StoredWeight[] = [];
  let top = 0;
  for (const part of parts) {
    const count = typeOfWeight(part).shape[0]!;
    const [from, to] = [Math.max(start, top), Math.min(start + rows, top + count)];
    if (from < to) found.push(rowsOfWeight(part, 0, from - top, to - from));
    top += count;
  }
  return found.length === 1 ? found[0]! : { kind: "rows", parts: found };
}
