/**
 * `npm run bench -- pareto [PROMPTS]`: what int8, the cache, fewer steps and guidance save on the bundled model, and how far the pictures
 * move. For each combination the processor time of a picture, the runs of the network that were skipped, and the mean and least
 * PSNR to the picture of the same prompt, seed and guidance in 50 steps of float32 without cache. The front is marked: the
 * combinations than which none is faster at the same PSNR, to a tenth of a dB.
 */
import { psnr } from "../src/evaluation/psnr.ts";
import { cacheModes } from "../src/diffusion/step-cache.ts";
import { computations } from "../src/pipelines/compute.ts";
import { openPipeline } from "../src/pipelines/open/open-node.ts";
import { finished, type Pipeline } from "../src/pipelines/pipeline.ts";
import type { GenerateRequest } from "../src/pipelines/settings.ts";

const prompts = [
  "red heart",
  "cat with a hat",
  "blue house",
  "dog",
  "狗",
  "rocket, flat style",
  "pizza",
  "ghost with a crown",
];
const stepCounts = [4, 8, 20] as const;
const guidances = [1, 2] as const;
const referenceSteps = 50;

interface Row {
  readonly request: GenerateRequest;
  readonly milliseconds: number;
  readonly skipped: string;
  readonly mean: number;
  readonly least: number;
}

async function drawAll(pipeline: Pipeline, request: GenerateRequest, texts: readonly string[]) {
  let [asked, reused] = [0, 0];
  const pictures = [];
  const before = process.cpuUsage();
  for (const prompt of texts) {
    let last: { readonly asked: number; readonly reused: number } | undefined;
    const onProgress: GenerateRequest["onProgress"] = ({ cached }) => {
      last = cached;
    };
    const drawn = await finished(pipeline.generate({ prompt, seed: 7, ...request, onProgress }));
    pictures.push(drawn[0]!);
    asked += last?.asked ?? 0;
    reused += last?.reused ?? 0;
  }
  const { user, system } = process.cpuUsage(before);
  const milliseconds = (user + system) / 1000 / texts.length;
  return { pictures, milliseconds, skipped: asked === 0 ? "–" : `${reused} of ${asked}` };
}

/** Measures all combinations and returns a table in Markdown. */
export async function paretoTable(count: number, report: (line: string) => void): Promise<string> {
  const texts = prompts.slice(0, count);
  const pipeline = await openPipeline("emoji");
  const rows: Row[] = [];
  try {
    for (const guidance of guidances) {
      const exact = await drawAll(pipeline, { guidance, steps: referenceSteps }, texts);
      for (const steps of stepCounts) {
        for (const compute of computations) {
          // The program is compiled before it is timed.
          await drawAll(pipeline, { guidance, steps: 1, compute }, texts.slice(0, 1));
          for (const cache of cacheModes) {
            const request = { guidance, steps, compute, cache };
            const { pictures, ...figures } = await drawAll(pipeline, request, texts);
            const distances = pictures.map((picture, i) => psnr(picture, exact.pictures[i]!));
            const mean = distances.reduce((sum, value) => sum + value, 0) / distances.length;
            rows.push({ request, ...figures, mean, least: Math.min(...distances) });
            report(JSON.stringify(rows.at(-1)));
          }
        }
      }
    }
  } finally {
    await pipeline.dispose();
  }
  return tableOf(rows);
}

function tableOf(rows: readonly Row[]): string {
  const isBeaten = (row: Row) =>
    rows.some(
      (other) =>
        other.request.guidance === row.request.guidance &&
        other.milliseconds < row.milliseconds &&
        other.mean >= row.mean - 0.05,
    );
  const lines = rows.map((row) => {
    const { guidance, steps, compute, cache } = row.request;
    const figures = [row.milliseconds.toFixed(0), row.skipped, row.mean.toFixed(1)];
    const mark = isBeaten(row) ? "" : "●";
    const cells = [guidance, steps, compute, cache, ...figures, row.least.toFixed(1), mark];
    return `| ${cells.join(" | ")} |`;
  });
  return [
    "| guidance | steps | compute | cache | processor ms a picture | runs skipped | PSNR, mean | least | front |",
    "| ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | :---: |",
    ...lines,
  ].join("\n");
}
