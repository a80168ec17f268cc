/** A backend that tells what its programs were asked. */
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";
import type { Backend } from "../../src/engine/runtime/backend.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";

export type Inputs = Readonly<Record<string, NdArray>>;

/** The CPU, and what its programs were asked. */
export function watchedBackend(): { backend: Backend; asked: Inputs[] } {
  const cpu = nodeBackend("cpu");
  const asked: Inputs[] = [];
  const backend: Backend = {
    device: "cpu",
    async compile(graph, options) {
      const program = await cpu.compile(graph, options);
      return {
        ...program,
        run(inputs, runOptions) {
          asked.push(inputs);
          return program.run(inputs, runOptions);
        },
      };
    },
  };
  return { backend, asked };
}
