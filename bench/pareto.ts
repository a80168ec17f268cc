/**
 * `npm run bench -- pareto [PICTURES] [--model FOLDER] [--svg FILE]`: what int8, the cache, fewer steps and guidance save on the
 * bundled model, or on a model of classes that `patchwise train` wrote, and what they cost.
 *
 * For each combination the processor time of a picture, the runs of the network that were skipped, the mean and least PSNR to the
 * picture of the same prompt, seed and guidance in 50 steps of float32 without cache, KID × 1000 and prompt accuracy. The front is
 * marked: the combinations than which none is faster at the same PSNR, to a tenth of a dB.
 */
import { writeFileSync } from "node:fs";
import { chart } from "../examples/chart.ts";
import { cacheModes } from "../src/diffusion/step-cache.ts";
import { psnr } from "../src/evaluation/psnr.ts";
import { computations } from "../src/pipelines/compute.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { openModel } from "../src/pipelines/open/open-node.ts";
import { finished, imagePipeline, type Pipeline } from "../src/pipelines/pipeline.ts";
import type { GenerateRequest } from "../src/pipelines/settings.ts";
import { openScorer, type Scorer } from "./pareto-scores.ts";
import { classSubjects, promptSubjects, type Subject } from "./pareto-subjects.ts";

const stepCounts = [4, 8, 20] as const;
const guidances = [
  { name: "1", request: { guidance: 1 } },
  { name: "2", request: { guidance: 2 } },
  { name: "2 in (0.3, 3]", request: { guidance: 2, guidanceInterval: [0.3, 3] as const } },
] as const;
const referenceSteps = 50;

export interface ParetoOptions {
  /** The number of pictures of each combination, from 4. */
  readonly pictures: number;
  /** A folder with a model of classes; the bundled model unless given. */
  readonly model?: string | undefined;
  /** The SVG file of a chart of PSNR against processor time; none unless given. */
  readonly svg?: string | undefined;
}

interface Row {
  readonly guidance: string;
  readonly request: GenerateRequest;
  readonly milliseconds: number;
  readonly skipped: string;
  readonly mean: number;
  readonly least: number;
  /** KID × 1000 and its standard deviation. */
  readonly kid: number;
  readonly kidDeviation: number;
  /** Shares of drawings whose nearest emoji, or one of the five nearest, is right. */
  readonly top1: number;
  readonly top5: number;
}

async function drawAll(pipeline: Pipeline, request: GenerateRequest, subjects: readonly Subject[]) {
  let [asked, reused] = [0, 0];
  const pictures = [];
  const before = process.cpuUsage();
  for (const subject of subjects) {
    let last: { readonly asked: number; readonly reused: number } | undefined;
    const onProgress: GenerateRequest["onProgress"] = ({ cached }) => {
      last = cached;
    };
    const whole = { ...subject.request, ...request, onProgress };
    const drawn = await finished(pipeline.generate(whole));
    pictures.push(drawn[0]!);
    asked += last?.asked ?? 0;
    reused += last?.reused ?? 0;
  }
  const { user, system } = process.cpuUsage(before);
  const milliseconds = (user + system) / 1000 / subjects.length;
  const skipped = asked === 0 ? "–" : `${Math.round((100 * reused) / asked)} %`;
  return { pictures, milliseconds, skipped };
}

/** Measures all combinations and returns a table in Markdown. */
export async function paretoTable(
  { pictures: count, model, svg }: ParetoOptions,
  report: (line: string) => void,
): Promise<string> {
  const opened = await openModel(model ?? "emoji");
  const pipeline = imagePipeline(opened, nodeBackend("cpu"));
  const { classes } = opened;
  const subjects = classes ? classSubjects([...classes.keys()], count) : promptSubjects(count);
  const scorer = await openScorer();
  try {
    const rows: Row[] = [];
    for (const guidance of guidances) {
      for await (const row of rowsWith(guidance, pipeline, subjects, scorer)) {
        rows.push(row);
        report(JSON.stringify(row));
      }
    }
    if (svg !== undefined) writeFileSync(svg, chartOf(rows, opened.name));
    return tableOf(rows);
  } finally {
    await scorer.dispose();
    await pipeline.dispose();
  }
}

async function* rowsWith(
  { name, request: guided }: (typeof guidances)[number],
  pipeline: Pipeline,
  subjects: readonly Subject[],
  scorer: Scorer,
): AsyncGenerator<Row> {
  const exact = await drawAll(pipeline, { ...guided, steps: referenceSteps }, subjects);
  const answers = subjects.map(({ answer }) => answer);
  for (const steps of stepCounts) {
    for (const compute of computations) {
      // The program is compiled before it is timed.
      await drawAll(pipeline, { ...guided, steps: 1, compute }, subjects.slice(0, 1));
      for (const cache of cacheModes) {
        const request = { ...guided, steps, compute, cache };
        const { pictures, ...figures } = await drawAll(pipeline, request, subjects);
        const distances = pictures.map((picture, i) => psnr(picture, exact.pictures[i]!));
        const mean = distances.reduce((sum, value) => sum + value, 0) / distances.length;
        const { kid, kidDeviation, top1, top5 } = await scorer.score(answers, pictures);
        const quality = { kid: 1000 * kid!, kidDeviation: 1000 * kidDeviation!, top1, top5 };
        const least = Math.min(...distances);
        yield { guidance: name, request, ...figures, mean, least, ...quality };
      }
    }
  }
}

/** Series of PSNR against time, with the number of steps beside each point, for the guidance in which there are most differences. */
function chartOf(rows: readonly Row[], model: string): string {
  const own = rows.filter(({ guidance }) => guidance === guidances[1].name);
  const series = computations.flatMap((compute) =>
    cacheModes.map((cache) => ({
      name: cache === "off" ? compute : `${compute}, cache ${cache}`,
      style: "both" as const,
      points: own
        .filter(({ request }) => request.compute === compute && request.cache === cache)
        .map(({ request, milliseconds, mean }) => ({
          x: milliseconds,
          y: mean,
          label: String(request.steps),
        })),
    })),
  );
  return chart({
    title: `${model}: distance to 50 steps of float32 against time, by steps`,
    x: { label: "processor time of a picture, ms", scale: "log" },
    y: { label: "PSNR, dB" },
    series,
  });
}

function tableOf(rows: readonly Row[]): string {
  const isBeaten = (row: Row) =>
    rows.some(
      (other) =>
        other.guidance === row.guidance &&
        other.milliseconds < row.milliseconds &&
        other.mean >= row.mean - 0.05,
    );
  const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
  const lines = rows.map((row) => {
    const { steps, compute, cache } = row.request;
    const figures = [row.milliseconds.toFixed(0), row.skipped, row.mean.toFixed(1)];
    const kid = `${row.kid.toFixed(2)} ± ${row.kidDeviation.toFixed(2)}`;
    const quality = [row.least.toFixed(1), kid, percent(row.top1), percent(row.top5)];
    const cells = [row.guidance, steps, compute, cache, ...figures, ...quality];
    return `| ${cells.join(" | ")} | ${isBeaten(row) ? "" : "●"} |`;
  });
  return [
    "| guidance | steps | compute | cache | processor ms a picture | runs skipped | PSNR, mean | least | KID × 1000 | top-1 | top-5 | front |",
    "| ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | :---: |",
    ...lines,
  ].join("\n");
}
