/** The work of `sample-work.ts` with the model, guidance and sampler of the library. */
import { splitAcrossCopies, denoiserOf, batchedNetwork } from "../src/diffusion/denoiser.ts";
import { guided } from "../src/diffusion/guidance.ts";
import { flowLevels } from "../src/diffusion/levels.ts";
import { samplers } from "../src/diffusion/samplers/index.ts";
import { type NdArray, ndarray } from "../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { type OwnContender, timed } from "./contender.ts";
import { batchName, sampleGraph, type SampleWork } from "./sample-work.ts";
import type { Settings } from "./settings.ts";
import { computedWith, networkUnder, skippedSince } from "./ours-settings.ts";
import { readTensor, readWork, storedTensors } from "./tensor-file.ts";

const contender: OwnContender = {
  async setup(workDir, settings) {
    const work = { ...(readWork(workDir) as SampleWork & Settings), ...settings };
    const backend = nodeBackend("cpu", { worker: true });
    const { graph, weights } = computedWith(
      work.compute,
      sampleGraph(work),
      storedTensors(workDir),
    );
    // As many copies as the smallest batch has rows, with and without its class: threads that work on rows of their
    // own need not wait for each other.
    const copies = Math.min(work.threads, 2 * Math.min(...work.batches));
    const threads = Math.floor(work.threads / copies);
    const options = { weights, prepack: true, threads };
    const programs = await Promise.all(
      Array.from({ length: copies }, () => backend.compile(graph, options)),
    );
    const run = splitAcrossCopies(
      programs.map((program) => async (inputs) => (await program.run(inputs))["output"]!),
    );
    const learnedVariance = work.outputs > work.channels;
    const levels = flowLevels(work.steps);
    const skipped = { asked: 0, reused: 0 };

    const drawing = (batch: number) => {
      const network = batchedNetwork(run);
      const under = (classes: readonly number[]) => {
        const y = ndarray("int64", [batch], classes);
        const cached = networkUnder(work.cache, network, { y }, levels, skipped);
        return denoiserOf(cached, work.predicts, { learnedVariance });
      };
      const { shape, data } = readTensor(workDir, `noise.${batch}`);
      const denoise = guided(
        under([...readTensor(workDir, `y.${batch}`).data]),
        under(new Array<number>(batch).fill(work.classes)),
        { scale: work.guidance },
      );
      return samplers.euler(denoise, ndarray("float32", shape, data), levels);
    };
    for (const batch of work.batches) await drawing(batch).next();

    const begun = new Map<number, ReturnType<typeof drawing>>();
    /** Advances a batch by `stride` steps. */
    const advance = async (batch: number): Promise<NdArray> => {
      const steps = begun.get(batch) ?? drawing(batch);
      begun.set(batch, steps);
      for (let i = 1; ; i++) {
        const { value, done } = await steps.next();
        if (done) throw new Error(`Sampling ended before ${work.stride} more steps.`);
        if (value.step === work.steps) begun.delete(batch);
        if (i === work.stride) return value.x;
      }
    };

    return {
      settings: `onnxruntime-node, ${copies} workers, ${threads} threads each`,
      async step() {
        const before = { ...skipped };
        const parts: Record<string, number> = {};
        const result: number[] = [];
        for (const batch of work.batches) {
          const { ms, result: latents } = await timed(() => advance(batch));
          parts[batchName(batch)] = ms;
          for (const value of latents.data) result.push(Number(value));
        }
        const value = result.reduce((sum, x) => sum + x * x, 0) / result.length;
        const ms = Object.values(parts).reduce((sum, each) => sum + each);
        return { ms, value, parts, result, ...skippedSince(before, skipped) };
      },
    };
  },
};

export default contender;
