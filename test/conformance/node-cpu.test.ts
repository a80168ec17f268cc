import { describe, it } from "vitest";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { allCases } from "./cases/index.ts";
import { runCase } from "./suite.ts";

describe("conformance: onnxruntime-node on the CPU", () => {
  const backend = nodeBackend("cpu");
  for (const test of allCases) it(test.name, () => runCase(backend, test));
});
