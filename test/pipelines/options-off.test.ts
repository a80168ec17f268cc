/**
 * What draws faster is off by one option, and then the pictures have the same bits as without it. The standard is no recorded picture, whose
 * bits depend on the processor, but the bundled model's network by itself: its graph as it is traced, compiled and run once a step on all rows,
 * without the modules of int8, cache and interval.
 */
import { afterAll, describe, expect, it } from "vitest";
import { combine, rowsOf, stackRows } from "../../src/diffusion/arrays.ts";
import type { Denoiser } from "../../src/diffusion/denoiser.ts";
import { keyedNoise } from "../../src/diffusion/noise.ts";
import { estimatesOf } from "../../src/diffusion/parameterization.ts";
import { samplerNamed } from "../../src/diffusion/samplers/index.ts";
import { type NdArray, ndarray } from "../../src/engine/arrays/ndarray.ts";
import { graphToString } from "../../src/engine/graph/print.ts";
import { lower } from "../../src/engine/onnx/lower.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { mapValues } from "../../src/engine/records.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { picturesOf } from "../../src/pictures/picture.ts";
import { networkGraph } from "../../src/pipelines/image-model.ts";
import { openModel } from "../../src/pipelines/open/open-node.ts";
import { finished, imagePipeline } from "../../src/pipelines/pipeline.ts";
import type { GenerateRequest } from "../../src/pipelines/settings.ts";
import { watchedBackend } from "../support/watched-backend.ts";

const size = [64, 64] as const;
const steps = 4;
/** Enough for a cache to leave out runs of the network. */
const manySteps = 12;
const prompt = "red heart";

const model = await openModel("emoji");
const graph = () => networkGraph(model.network, size);
const plain = await nodeBackend("cpu").compile(graph(), { weights: model.weights, prepack: true });
const { backend, compiled, asked } = watchedBackend();
const pipeline = imagePipeline(model, backend);
afterAll(async () => {
  await plain.dispose();
  await pipeline.dispose();
});

interface Drawing {
  readonly seed: number;
  readonly count: number;
  readonly guidance: number;
  readonly steps: number;
}
const drawings: readonly Drawing[] = [
  { seed: 3, count: 1, guidance: 1, steps: manySteps },
  { seed: 3, count: 2, guidance: 2, steps },
  { seed: 11, count: 1, guidance: 2, steps },
  { seed: 11, count: 2, guidance: 1, steps },
];

const off = {
  compute: { compute: "float32" },
  cache: { cache: "off" },
  interval: { guidanceInterval: [0, 1e9] },
  all: { compute: "float32", cache: "off", guidanceInterval: [0, 1e9] },
} as const satisfies Record<string, GenerateRequest>;

const pixelsOf = (pictures: readonly { readonly pixels: Uint8Array }[]) =>
  pictures.map(({ pixels }) => pixels);

const draw = async (request: GenerateRequest) =>
  pixelsOf(await finished(pipeline.generate({ prompt, ...request })));

/** Draws with the network's own program. */
async function drawPlainly({ seed, count, guidance, steps: own }: Drawing): Promise<Uint8Array[]> {
  const { process, encoder } = model;
  const asks = await encoder!.encode(guidance === 1 ? [prompt] : [prompt, ""], () => {
    throw new Error("The bundled model has no encoder beside its network.");
  });
  const conditions = mapValues(asks[0]!, (_, name) =>
    stackRows(asks.flatMap((each) => new Array<NdArray>(count).fill(each[name]!))),
  );
  const denoise: Denoiser = async (x, level) => {
    const rows = count * asks.length;
    const t = ndarray("float32", [rows], new Array<number>(rows).fill(level.time));
    const inputs = { ...conditions, t, x: stackRows(asks.map(() => x)) };
    const output = (await plain.run(inputs))["output"]!;
    const estimate = (from: number) =>
      estimatesOf(process.predicts!, level, x, rowsOf(output, from, count));
    if (guidance === 1) return estimate(0);
    return { x0: combine([guidance, estimate(0).x0], [1 - guidance, estimate(count).x0]) };
  };
  const keys = Array.from({ length: count }, (_, i) => randomKey(seed + i));
  const noise = keyedNoise(keys)("start", [count, 3, ...size]);
  const sample = samplerNamed(process.sampler);
  return pixelsOf(
    picturesOf(await finished(sample(denoise, noise, process.levels(own, { size })))),
  );
}

const largestDifference = (a: readonly Uint8Array[], b: readonly Uint8Array[]) =>
  Math.max(...a.flatMap((pixels, i) => [...pixels].map((value, k) => Math.abs(value - b[i]![k]!))));

describe("with every option off", () => {
  it.each(drawings)("a picture has the bits of the network by itself: %o", async (drawing) => {
    const wanted = await drawPlainly(drawing);
    expect(new Set(wanted[0]).size).toBeGreaterThan(20);
    for (const [name, request] of Object.entries({ nothing: {}, ...off })) {
      asked.length = 0;
      const drawn = await draw({ ...drawing, ...request });
      expect([name, largestDifference(drawn, wanted)]).toEqual([name, 0]);
      const rows = drawing.count * (drawing.guidance === 1 ? 1 : 2);
      expect(asked.map(({ x }) => x!.shape[0])).toEqual(new Array(drawing.steps).fill(rows));
    }
  });

  it("the only program is that of the network as it is traced", async () => {
    const watched = watchedBackend();
    await using fresh = imagePipeline(await openModel("emoji"), watched.backend);
    await finished(fresh.generate({ prompt, steps: 1, ...off.all }));
    expect(watched.compiled).toHaveLength(1);
    const { graph: own, options } = watched.compiled[0]!;
    expect(graphToString(own)).toBe(graphToString(graph()));
    const [here, there] = [lower(own, options!.weights), lower(graph(), model.weights)];
    expect(Buffer.compare(here.model, there.model)).toBe(0);
  });
});

describe("with an option on", () => {
  const guided = { seed: 3, count: 1, guidance: 2, steps } as const;
  const on = {
    compute: { compute: "int8" },
    cache: { cache: "fast", steps: manySteps },
    interval: { guidanceInterval: [0.3, 3] },
  } as const satisfies Record<string, GenerateRequest>;

  it("a drawing differs, and those after it and beside it do not", async () => {
    const wanted = await drawPlainly(guided);
    for (const [name, request] of Object.entries(on)) {
      const whole = { ...guided, ...request };
      asked.length = 0;
      const changed = await draw(whole);
      const without = await draw({ ...whole, ...off[name as keyof typeof on] });
      expect([name, largestDifference(changed, without)]).not.toEqual([name, 0]);
      expect([name, await draw({ ...guided, ...off.all })]).toEqual([name, wanted]);
      // Rows that run beside others may be added up in another order.
      const [beside] = await Promise.all([draw(guided), draw(whole)]);
      expect(largestDifference(beside, wanted)).toBeLessThanOrEqual(1);
    }
  });

  it("its own work is done: another program, fewer rows", async () => {
    const rowsOfOne = async (request: GenerateRequest) => {
      asked.length = 0;
      await draw({ ...guided, ...request });
      return asked.reduce((sum, { x }) => sum + x!.shape[0]!, 0);
    };
    await draw({ ...guided, ...on.compute });
    expect(compiled.some(({ graph: { nodes } }) => nodes.some(isInteger))).toBe(true);
    expect(await rowsOfOne({ steps: manySteps })).toBe(2 * manySteps);
    expect(await rowsOfOne(on.cache)).toBeLessThan(2 * manySteps);
    expect(await rowsOfOne({ ...on.interval, steps: manySteps })).toBeLessThan(2 * manySteps);
  });
});

const isInteger = ({ op }: { readonly op: string }) => op === "quantizedLinear";
