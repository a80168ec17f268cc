import { describe, expect, it } from "vitest";
import { input } from "../../src/engine/graph/functional.ts";
import { createParams } from "../../src/nn/params.ts";
import { norm } from "../../src/nn/norm.ts";

describe("norm", () => {
  const x = input("x", [2, 3]);
  it.each([
    ["layer", false, "layerNorm", []],
    ["layer", true, "layerNorm", ["weight", "bias"]],
    ["rms", false, "rmsNorm", []],
    ["rms", true, "rmsNorm", ["weight"]],
  ] as const)("%s, affine %s, is one %s with its weights", (kind, affine, op, names) => {
    const p = createParams();
    const { node } = norm(p, x, { kind, affine, epsilon: 0.25 });
    expect([node.op, node.attributes]).toEqual([op, { epsilon: 0.25 }]);
    expect([...p.declared.keys()]).toEqual(names);
  });
});
