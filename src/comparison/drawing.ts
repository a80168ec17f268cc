/** Draws with the models of a comparison: every model gets the same prompts or classes and the same seeds. */
import type { Picture } from "../pictures/picture.ts";
import { pictureGrid } from "../pictures/grid.ts";
import { joined } from "../engine/bytes.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import type { ImageModel } from "../pipelines/image-model.ts";
import { finished, imagePipeline, type Pipeline } from "../pipelines/pipeline.ts";
import { type GenerateRequest } from "../pipelines/settings.ts";
import { closing } from "../weights/sources/closing.ts";

/** The captions and class names that models can be prompted with. */
export interface Prompts {
  readonly classes: readonly string[] | undefined;
  /** Captions of the data; empty strings if it has none. */
  readonly captions: readonly string[];
}

export interface DrawOptions {
  readonly backend: Backend;
  readonly progress?: (done: number) => void;
  readonly signal?: AbortSignal | undefined;
}

export interface DrawnSet {
  /** [count, height, width, channels] */
  readonly pixels: Uint8Array;
  /** The class that each picture was conditioned on; undefined unless the model is class-conditional. */
  readonly labels: readonly number[] | undefined;
  readonly seconds: number;
  /** Number of steps and sampler, such as "50 × ddim". */
  readonly sampling: string;
}

/** The most pictures in one batch. */
const BATCH = 25;

/**
 * Draws `count` pictures, divided evenly over the prompts.
 *
 * @throws the signal's reason if aborted
 */
export async function drawAll(
  model: ImageModel,
  prompts: Prompts,
  count: number,
  { backend, progress, signal }: DrawOptions,
): Promise<DrawnSet> {
  return onPipeline(model, backend, async (pipeline) => {
    const { steps, sampler } = pipeline.settings(requestOf(model, prompts, 0));
    const drawn: Picture[] = [];
    const labels: number[] = [];
    const begun = performance.now();
    for (const { first, size, index } of batches(model, prompts, count)) {
      const request = { ...requestOf(model, prompts, index), seed: first, count: size, signal };
      drawn.push(...(await finished(pipeline.generate(request))));
      for (let i = 0; i < size; i++) labels.push(index);
      progress?.(drawn.length);
    }
    const seconds = (performance.now() - begun) / 1000;
    const pixels = joined(drawn.map((each) => each.pixels));
    const drawsClasses = model.network.condition.kind === "class";
    const sampling = `${steps} × ${sampler}`;
    return { pixels, labels: drawsClasses ? labels : undefined, seconds, sampling };
  });
}

/** The most rows of a grid, and the pictures in each. */
const [MOST_ROWS, COLUMNS] = [10, 4];

/** Draws a grid with one row for each prompt or class. */
export async function drawSampleGrid(
  model: ImageModel,
  prompts: Prompts,
  { backend, signal }: DrawOptions,
): Promise<Picture> {
  return onPipeline(model, backend, async (pipeline) => {
    const drawn: Picture[] = [];
    for (let row = 0; row < Math.min(MOST_ROWS, promptCount(model, prompts)); row++) {
      const request = { ...requestOf(model, prompts, row), seed: COLUMNS * row, count: COLUMNS };
      drawn.push(...(await finished(pipeline.generate({ ...request, signal }))));
    }
    return pictureGrid(drawn, COLUMNS, { scale: Math.max(1, Math.round(56 / drawn[0]!.width)) });
  });
}

/** Runs `use` on a pipeline of the model, and leaves the model open. */
async function onPipeline<T>(
  model: ImageModel,
  backend: Backend,
  use: (pipeline: Pipeline) => Promise<T>,
): Promise<T> {
  const pipeline = imagePipeline({ ...model, close: () => Promise.resolve() }, backend);
  return closing({ close: () => pipeline.dispose() }, () => use(pipeline));
}

/** Batches of a single prompt each, in equal shares: the first picture, the number of pictures, the index of the prompt. */
function* batches(model: ImageModel, prompts: Prompts, count: number) {
  const total = promptCount(model, prompts);
  let first = 0;
  for (let index = 0; index < total; index++) {
    const end = Math.round((count * (index + 1)) / total);
    while (first < end) {
      const size = Math.min(BATCH, end - first);
      yield { first, size, index };
      first += size;
    }
  }
}

/** The most captions that are drawn, since each takes a batch of its own. */
const MOST_CAPTIONS = 100;

/** The number of different prompts; without a condition, the number of rows in a grid. */
function promptCount({ network }: ImageModel, { captions }: Prompts): number {
  const { condition } = network;
  if (condition.kind === "none") return MOST_ROWS;
  return condition.kind === "class" ? condition.classes : Math.min(MOST_CAPTIONS, captions.length);
}

function requestOf({ network }: ImageModel, { captions }: Prompts, index: number): GenerateRequest {
  switch (network.condition.kind) {
    case "none":
      return {};
    case "class":
      return { class: index };
    case "text":
      return { prompt: captions[index]! };
  }
}
