/** The work of `matmul-work.ts` in our engine: one program per shape, which returns the last element of each product. */
import { concat, input } from "../src/engine/graph/functional.ts";
import { graphOf } from "../src/engine/graph/graph.ts";
import { ndarray } from "../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { type Contender, timed } from "./contender.ts";
import type { MatmulWork } from "./matmul-work.ts";
import { readTensors, readWork } from "./tensor-file.ts";

const contender: Contender = {
  async setup(workDir) {
    const work = readWork(workDir) as MatmulWork;
    const tensors = readTensors(workDir);
    const backend = nodeBackend("cpu");
    const programs = await Promise.all(
      Object.entries(work.shapes).map(async ([name, [m, k, n]]) => {
        const names = Array.from({ length: work.products }, (_, i) => `a${i}`);
        const b = input("b", [k, n]);
        const corners = names.map((a) =>
          input(a, [m, k])
            .matmul(b)
            .slice(0, m - 1)
            .slice(1, n - 1),
        );
        const a = tensors.get(`${name}.a`)!.data;
        const inputs = Object.fromEntries(
          names.map((key, i) => [
            key,
            ndarray("float32", [m, k], a.subarray(i * m * k, (i + 1) * m * k)),
          ]),
        );
        return {
          name,
          program: await backend.compile(graphOf({ corners: concat(corners, 0) }), {
            threads: work.threads,
          }),
          inputs: { ...inputs, b: ndarray("float32", [k, n], tensors.get(`${name}.b`)!.data) },
        };
      }),
    );
    return {
      settings: `onnxruntime-node, ${work.threads} threads`,
      async step() {
        const parts: Record<string, number> = {};
        let value = 0;
        for (const { name, program, inputs } of programs) {
          const { ms, result } = await timed(() => program.run(inputs));
          parts[name] = ms / work.products;
          for (const corner of result["corners"]!.data) value += Math.abs(Number(corner));
        }
        return { ms: Object.values(parts).reduce((sum, ms) => sum + ms), value, parts };
      },
    };
  },
};

export default contender;
