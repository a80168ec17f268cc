/** Turns stored weights into ONNX initializers: whole, or only the rows that the graph slices out of a weight. */
import { ShapeError } from "../errors.ts";
import type { Graph } from "../graph/graph.ts";
import {
  emitWeight,
  sliceRows,
  type StoredWeight,
  type WeightEmitter,
  weightType,
} from "../runtime/stored-weight.ts";
import { formatShape, sameShape } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { readsOf, rowAxis } from "../passes/reads.ts";
import type { Emitter } from "./emitter.ts";
import { dataTypes } from "./proto.ts";

/**
 * Adds a weight to the ONNX graph.
 *
 * @returns the ONNX names of the parameter and of its slices, for those that the graph uses
 * @throws ShapeError if the weight and its parameter differ in shape
 */
export function lowerWeight(
  name: string,
  parameter: Tensor,
  stored: StoredWeight,
  graph: Graph,
  emitter: Emitter,
): Map<Tensor, string> {
  const { shape, dtype } = weightType(stored);
  if (!sameShape(shape, parameter.shape)) {
    throw new ShapeError(
      `The stored weight ${name} is ${formatShape(shape)}, the model expects ${formatShape(parameter.shape)}.`,
    );
  }
  const { whole, cuts } = readsOf(parameter, graph);
  // Half-precision checkpoints stay as they are stored and are converted to the dtype of the model.
  const converted = (as: string): string => {
    if (dtype === parameter.dtype) return as;
    emitter.scope = parameter.node.scope;
    return emitter.emit("Cast", [as], { to: dataTypes[parameter.dtype] });
  };
  const target: WeightEmitter = {
    array(as, array) {
      emitter.initializer(as, array);
      return converted(as);
    },
    file(as, weight) {
      emitter.external(as, weight);
      return converted(as);
    },
    concat(parts) {
      emitter.scope = parameter.node.scope;
      return emitter.emit("Concat", parts, { axis: 0 });
    },
  };

  const names = new Map<Tensor, string>();
  if (whole) names.set(parameter, emitWeight(stored, name, target));
  for (const [i, cut] of cuts.entries()) {
    for (const { output, start, rows } of cut) {
      const as = `${name}[${start}:${start + rows}]${cuts.length > 1 ? `#${i}` : ""}`;
      names.set(output, emitWeight(sliceRows(stored, rowAxis(shape), start, rows), as, target));
    }
  }
  return names;
}
