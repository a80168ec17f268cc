/** The work of `matmul-work.ts` in TensorFlow.js, on its WebAssembly backend. */
import { type Contender, timed } from "../contender.ts";
import type { MatmulWork } from "../matmul-work.ts";
import { readTensors, readWork } from "../tensor-file.ts";
import { loadTf } from "./tfjs.ts";

const contender: Contender = {
  async setup(workDir) {
    const work = readWork(workDir) as MatmulWork;
    const { tf, settings } = await loadTf(work.threads);
    const tensors = readTensors(workDir);
    const factors = Object.entries(work.shapes).map(([name, [m, k, n]]) => {
      const a = tensors.get(`${name}.a`)!.data;
      return {
        name,
        as: Array.from({ length: work.products }, (_, i) =>
          tf.tensor2d(a.subarray(i * m * k, (i + 1) * m * k), [m, k]),
        ),
        b: tf.tensor2d(tensors.get(`${name}.b`)!.data, [k, n]),
      };
    });

    return {
      settings,
      async step() {
        const parts: Record<string, number> = {};
        let value = 0;
        for (const { name, as, b } of factors) {
          // The backend computes synchronously.
          const { ms, result } = await timed(() => as.map((a) => tf.matMul(a, b)));
          parts[name] = ms / work.products;
          for (const c of result) value += Math.abs((await c.data()).at(-1)!);
          tf.dispose(result);
        }
        return { ms: Object.values(parts).reduce((sum, ms) => sum + ms), value, parts };
      },
    };
  },
};

export default contender;
