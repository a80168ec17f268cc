/** The work of `emoji-work.ts` with the model and sampler of the library. */
import { batchedNetwork, denoiserOf, splitAcrossCopies } from "../src/diffusion/denoiser.ts";
import { flowLevels } from "../src/diffusion/levels.ts";
import { samplers } from "../src/diffusion/samplers/index.ts";
import { type NdArray, ndarray } from "../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { type OwnContender, timed } from "./contender.ts";
import { emojiGraph, type EmojiWork } from "./emoji-work.ts";
import { computedWith, networkUnder, skippedSince } from "./ours-settings.ts";
import { batchName } from "./sample-work.ts";
import type { Settings } from "./settings.ts";
import { readTensor, readWork, storedTensors } from "./tensor-file.ts";

const contender: OwnContender = {
  async setup(workDir, settings) {
    const work = { ...(readWork(workDir) as EmojiWork & Settings), ...settings };
    const backend = nodeBackend("cpu", { worker: true });
    const { graph, weights } = computedWith(work.compute, emojiGraph(work), storedTensors(workDir));
    // Without guidance the smallest batch is a single row, which all threads share.
    const programs = await Promise.all([
      backend.compile(graph, { weights, prepack: true, threads: work.threads }),
      ...Array.from({ length: work.threads }, () =>
        backend.compile(graph, { weights, prepack: true, threads: 1 }),
      ),
    ]);
    const [alone, ...apart] = programs.map(
      (program) => async (inputs: Readonly<Record<string, NdArray>>) =>
        (await program.run(inputs))["output"]!,
    );
    const spread = splitAcrossCopies(apart);
    const levels = flowLevels(work.steps);
    const skipped = { asked: 0, reused: 0 };

    const draw = async (batch: number): Promise<NdArray> => {
      const network = batchedNetwork((inputs) =>
        inputs["x"]!.shape[0] === 1 ? alone!(inputs) : spread(inputs),
      );
      const codes = readTensor(workDir, `y.${batch}`);
      const conditions = {
        y: ndarray("float32", codes.shape, codes.data),
        mask: ndarray("bool", [batch, 1], new Array<number>(batch).fill(1)),
      };
      const { shape, data } = readTensor(workDir, `noise.${batch}`);
      const under = networkUnder(work.cache, network, conditions, levels, skipped);
      const steps = samplers.euler(
        denoiserOf(under, "x0"),
        ndarray("float32", shape, data),
        levels,
      );
      for (;;) {
        const next = await steps.next();
        if (next.done) return next.value;
      }
    };
    for (const batch of work.batches) await draw(batch);

    return {
      settings: `onnxruntime-node, one row by ${work.threads} threads, several by ${work.threads} workers`,
      async step() {
        const before = { ...skipped };
        const parts: Record<string, number> = {};
        const result: number[] = [];
        for (const batch of work.batches) {
          const { ms, result: pictures } = await timed(() => draw(batch));
          parts[batchName(batch)] = ms;
          for (const value of pictures.data) result.push(Number(value));
        }
        const value = result.reduce((sum, x) => sum + x * x, 0) / result.length;
        const ms = Object.values(parts).reduce((sum, each) => sum + each);
        return { ms, value, parts, result, ...skippedSince(before, skipped) };
      },
    };
  },
};

export default contender;
