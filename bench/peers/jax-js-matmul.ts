/** The work of `matmul-work.ts` in jax-js, on its WebAssembly device. */
import type { Array as JaxArray } from "@jax-js/jax";
import { type Contender, timed } from "../contender.ts";
import type { MatmulWork } from "../matmul-work.ts";
import { readTensors, readWork } from "../tensor-file.ts";
import { loadJax } from "./jax-js.ts";

const contender: Contender = {
  async setup(workDir) {
    const work = readWork(workDir) as MatmulWork;
    const { jax, settings } = await loadJax(work.threads);
    const np = jax.numpy;
    const tensors = readTensors(workDir);
    const factors = Object.entries(work.shapes).map(([name, [m, k, n]]) => {
      const a = tensors.get(`${name}.a`)!.data;
      return {
        name,
        as: Array.from({ length: work.products }, (_, i) =>
          np.array(a.subarray(i * m * k, (i + 1) * m * k), { shape: [m, k] }),
        ),
        b: np.array(tensors.get(`${name}.b`)!.data, { shape: [k, n] }),
      };
    });
    await jax.blockUntilReady(factors.map(({ as, b }) => [...as, b]));

    return {
      settings,
      async step() {
        const parts: Record<string, number> = {};
        let value = 0;
        for (const { name, as, b } of factors) {
          const { ms, result } = await timed(() =>
            jax.blockUntilReady(as.map((a): JaxArray => np.matmul(a.ref, b.ref))),
          );
          parts[name] = ms / work.products;
          for (const c of result) value += Math.abs((await c.data()).at(-1));
        }
        return { ms: Object.values(parts).reduce((sum, ms) => sum + ms), value, parts };
      },
    };
  },
};

export default contender;
