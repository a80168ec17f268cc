import { describe, expect, it } from "vitest";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { allCases } from "./cases/index.ts";
import { runCase } from "./suite.ts";

describe("conformance: onnxruntime-node on the CPU", () => {
  const backend = nodeBackend("cpu");
  it.each(allCases.map((test) => [test.name, test] as const))("%s", async (_, test) => {
    expect(await runCase(backend, test)).toEqual([]);
  });
});
