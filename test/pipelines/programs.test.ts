import { describe, expect, it } from "vitest";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { ndarray, zeros } from "../../src/engine/arrays/ndarray.ts";
import type { Backend } from "../../src/engine/runtime/backend.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { createParams, zero } from "../../src/nn/params.ts";
import type { Stage } from "../../src/pipelines/image-model.ts";
import { stageMemory, stagePrograms } from "../../src/pipelines/programs.ts";

const MiB = 2 ** 20;

/** A stage whose weights take so many MiB. */
function stage(
  name: string,
  kind: Stage["kind"],
  size: number,
  dtype: "float32" | "float16" = "float32",
): Stage {
  return {
    name,
    kind,
    weights: () => ({ kind: "array", array: zeros(dtype, [size * 2 ** 18]) }),
    graph: () => {
      const weight = createParams().param("weight", [size * 2 ** 18], zero);
      return graphOf({ y: input("x", [batch, 1]).add(weight.sum()) });
    },
  };
}

const encoder = stage("encoder", "text encoder", 30);
const network = stage("network", "network", 20);
const decoder = stage("decoder", "decoder", 10);
const inputs = { x: ndarray("float32", [1, 1], [1]) };

/** Writes down what is made and dropped, and computes nothing. */
function recorder() {
  const log: string[] = [];
  let running = 0;
  const backend: Backend = {
    device: "none",
    async compile(graph, { prepack, convertEachRun } = {}) {
      expect(convertEachRun).toBe(!prepack);
      const megabytes = graph.parameters.map(({ shape }) => (shape[0] as number) / 2 ** 18);
      const name = `${megabytes.join()}${prepack ? "p" : ""}`;
      log.push(`+${name}`);
      return {
        async run({ x }) {
          running++;
          expect(running).toBe(1);
          await new Promise((resolve) => setTimeout(resolve, 1));
          running--;
          return { y: x! };
        },
        readState: async () => ({}),
        writeState: async () => {},
        dispose: async () => {
          expect(running).toBe(0);
          log.push(`-${name}`);
        },
      };
    },
  };
  return { backend, log };
}

async function logOf(memory: number | undefined, stages: readonly Stage[]): Promise<string> {
  const { backend, log } = recorder();
  const programs = stagePrograms(backend, { memory });
  await Promise.all(stages.map((each) => programs.run(each, inputs)));
  const used = log.join(" ");
  await programs.dispose();
  const [made, dropped] = ["+", "-"].map((sign) => log.filter((each) => each.startsWith(sign)));
  expect(dropped!.length).toBe(made!.length);
  return used;
}

describe("programs of stages", () => {
  const drawing = [encoder, network, network, decoder, encoder, network];

  it("are kept if memory is enough for all", async () => {
    expect(await logOf(2 ** 40, drawing)).toBe("+30 +20p +10p");
  });

  it("are dropped least recently used first if memory is not enough for all", async () => {
    const own = stageMemory(encoder, 1, "onDemand").total - 30 * MiB;
    expect(await logOf(own + 35 * MiB, drawing)).toBe("+30 -30 +20p +10p -20p -10p +30 -30 +20p");
    expect(await logOf(own + 45 * MiB, drawing)).toBe("+30 -30 +20p +10p -20p +30 -10p -30 +20p");
  });

  it("keep their weights as they are stored if they do not fit otherwise", async () => {
    const half = stage("half", "network", 20, "float16");
    const [fast, stored] = (["prepacked", "onDemand"] as const).map((keeping) =>
      stageMemory(half, 1, keeping),
    );
    // Half of the weights, and what is converted at once: here all of them.
    expect(fast!.weights - stored!.weights).toBe(
      Math.round((20 / 8) * MiB) + 10 * MiB - Math.round((10 / 12) * MiB),
    );
    expect(stored!.activations - fast!.activations).toBe(20 * MiB);
    expect(await logOf(2 ** 40, [half])).toBe("+20p");
    expect(await logOf(fast!.total - 1, [half])).toBe("+20");
  });

  it("are as many as asked for, least recently used first", async () => {
    const { backend, log } = recorder();
    const programs = stagePrograms(backend, { kept: 2 });
    for (const each of [
      network,
      decoder,
      network,
      stage("other", "network", 5),
      network,
      decoder,
    ]) {
      await programs.run(each, inputs);
    }
    expect(log.join(" ")).toBe("+20p +10p -10p +5p -5p +10p");
    await programs.dispose();
  });

  it("run no more once they are disposed", async () => {
    const { backend, log } = recorder();
    const programs = stagePrograms(backend);
    await programs.run(network, inputs);
    const disposed = programs.dispose();
    const late = programs.run(decoder, inputs);
    await expect(late).rejects.toThrow(
      "The pipeline was disposed, so it draws no more; open it again.",
    );
    await disposed;
    expect(log).toEqual(["+20p", "-20p"]);
  });

  it("of text encoders are dropped for others if the memory is not known", async () => {
    expect(await logOf(undefined, drawing)).toBe("+30 -30 +20p +10p +30 -30");
  });

  it("that fail to compile are compiled again on the next run", async () => {
    const { backend, log } = recorder();
    let failures = 1;
    const programs = stagePrograms({
      ...backend,
      compile: async (graph, options) => {
        if (failures-- > 0) throw new Error("no room");
        return backend.compile(graph, options);
      },
    });
    await expect(programs.run(network, inputs)).rejects.toThrow("no room");
    await programs.run(network, inputs);
    expect(log).toEqual(["+20p"]);
    await programs.dispose();
  });

  it("are not compiled for an aborted run", async () => {
    const { backend, log } = recorder();
    const programs = stagePrograms(backend);
    const signal = AbortSignal.abort(new Error("stopped"));
    await expect(programs.run(network, inputs, { signal })).rejects.toThrow("stopped");
    expect(log).toEqual([]);
  });
});
