import { describe, expect, it } from "vitest";
import { recompute } from "../../src/engine/graph/recompute.ts";
import { PatchwiseError } from "../../src/engine/errors.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { type Graph, graphOf, is } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { type Node, Tensor } from "../../src/engine/graph/tensor.ts";
import { verifyGraph } from "../../src/engine/passes/verify.ts";
import { ditTraining } from "../support/models.ts";

const x = input("x", [batch, 3]);
const w = parameter("mlp.fc1.weight", [3, 3]);
const e = x.exp();
const y = e.linear(w);
const graph = graphOf({ y });

/** A node that `apply` would not have made. */
function forged(node: Node, changes: Partial<Node>): Tensor {
  const outputs: Tensor[] = [];
  const copy = { ...node, outputs, ...changes };
  outputs.push(new Tensor(copy, 0, { shape: node.outputs[0]!.shape, dtype: "float32" }));
  return outputs[0]!;
}

describe("verifyGraph", () => {
  it("accepts the graphs of the engine", () => {
    const training = ditTraining({ tokens: 2, hidden: 4, heads: 2, depth: 2 }, true);
    for (const good of [graph, graphOf({}), training]) {
      expect(() => verifyGraph(good)).not.toThrow();
    }
  });

  it("keeps batch sizes apart from numbers", () => {
    expect(() =>
      verifyGraph(graphOf({ y: new Tensor(e.node, 0, { shape: [1, 3], dtype: "float32" }) })),
    ).toThrow(/^The output y is node \d+ \(exp\), which is not in the graph\.$/);
  });

  const name = (t: Tensor) =>
    `ode ${t.node.id} \\(${t.node.op}${t.node.scope ? ` at ${t.node.scope}` : ""}\\)`;
  const wrongShape = forged(e.node, {});
  Object.assign(wrongShape, { shape: [batch, 4] });
  const wrongType = forged(e.node, {});
  Object.assign(wrongType, { dtype: "float64" });
  const short = input("short", [batch, 2]);
  const invalid = forged(y.node, { inputs: [short, w], id: short.node.id + 1 });
  const silent = forged(e.node, { outputs: [] });
  const block = recompute([x], (inside) => inside.exp().sin());
  const { node } = block;
  const body = is(node, "recompute") ? node.attributes.body : graph;
  const swapped = forged(node, {
    attributes: { body: { ...body, nodes: body.nodes.toReversed() } },
  });

  it.each<[string, Graph, string]>([
    [
      "an order in which a node comes before its input",
      { ...graph, nodes: [y.node, e.node, x.node, w.node] },
      `^N${name(y)} reads input 0, n${name(e)}, which comes after it\\.$`,
    ],
    [
      "a node that is missing",
      { ...graph, nodes: graph.nodes.filter((other) => other !== e.node) },
      `^N${name(y)} reads input 0, n${name(e)}, which is not in the graph\\.$`,
    ],
    [
      "a node that is listed twice",
      { ...graph, nodes: [...graph.nodes, y.node] },
      "A node is listed twice",
    ],
    [
      "an output from elsewhere",
      { ...graph, outputs: { z: e.sin() } },
      "The output z is node \\d+ \\(sin\\), which is not in the graph",
    ],
    [
      "a leaf that is not listed",
      { ...graph, inputs: [] },
      `^N${name(x)} is not listed among the inputs of the graph`,
    ],
    [
      "a parameter listed as an input",
      { ...graph, inputs: [x, w], parameters: [] },
      `^N${name(w)} is not listed among the parameters of the graph`,
    ],
    [
      "a leaf without a node",
      { ...graph, inputs: [x, input("z", [])] },
      "The leaf z is not among the nodes",
    ],
    [
      "two leaves of one name",
      { ...graph, parameters: [w, parameter("x", [1])] },
      "Two leaves are named x\\.",
    ],
    [
      "a wrong shape",
      graphOf({ wrongShape }),
      `^Output 0 of n${name(e)} is float32 \\[B, 4\\], expected float32 \\[B, 3\\]\\.$`,
    ],
    [
      "a wrong dtype",
      graphOf({ wrongType }),
      `^Output 0 of n${name(e)} is float64 \\[B, 3\\], expected float32 \\[B, 3\\]\\.$`,
    ],
    [
      "inputs that do not fit",
      graphOf({ invalid }),
      `^N${name(invalid)}: \\[B, 2\\] × weight \\[3, 3\\]: the last size 2 is not the weight's 3\\.$`,
    ],
    ["outputs that are missing", graphOf({ silent }), "has 0 outputs, expected 1"],
    [
      "an output of another node",
      graphOf({ y: forged(e.node, { outputs: [e] }) }),
      `^Output 0 of n${name(e)} belongs to n${name(e)}`,
    ],
    [
      "a disorder in a block",
      graphOf({ swapped }),
      `\\(sin\\) in the block of n${name(block)} reads input 0, node \\d+ \\(exp\\), which comes after it`,
    ],
  ])("finds %s", (_, broken, message) => {
    expect(() => verifyGraph(broken)).toThrow(PatchwiseError);
    expect(() => verifyGraph(broken)).toThrow(new RegExp(message));
  });
});
