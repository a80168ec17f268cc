/** A backend that tells what it compiled, and what its programs were asked. */
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";
import type { Graph } from "../../src/engine/graph/graph.ts";
import type { Backend, CompileOptions } from "../../src/engine/runtime/backend.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";

export type Inputs = Readonly<Record<string, NdArray>>;

export interface Compiled {
  readonly graph: Graph;
  readonly options: CompileOptions | undefined;
}

/** The CPU, what it compiled, and what its programs were asked. */
export function watchedBackend(): { backend: Backend; compiled: Compiled[]; asked: Inputs[] } {
  const cpu = nodeBackend("cpu");
  const compiled: Compiled[] = [];
  const asked: Inputs[] = [];
  const backend: Backend = {
    device: "cpu",
    async compile(graph, options) {
      compiled.push({ graph, options });
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
  return { backend, compiled, asked };
}
