/** What the models of a comparison draw: for each the same wishes with the same seeds. */
import type { Picture } from "../pictures/picture.ts";
import { pictureGrid } from "../pictures/grid.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import type { ImageModel } from "../pipelines/image-model.ts";
import { imagePipeline } from "../pipelines/pipeline.ts";
import { type GenerateRequest } from "../pipelines/settings.ts";
import { finished, type Pipeline } from "../pipelines/pipeline.ts";

/** What can be asked for. */
export interface Wishes {
  readonly classes: readonly string[] | undefined;
  /** Empty texts where the data has none. */
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
  /** The class of each, of models that are told classes. */
  readonly asked: readonly number[] | undefined;
  readonly seconds: number;
  /** How they were sampled. */
  readonly sampling: string;
}

/** Pictures that are drawn at once. */
const BATCH = 25;

/** @throws the signal's reason */
export async function drawAll(
  model: ImageModel,
  wishes: Wishes,
  count: number,
  { backend, progress, signal }: DrawOptions,
): Promise<DrawnSet> {
  return onPipeline(model, backend, async (pipeline) => {
    const { steps, sampler } = pipeline.settings(requestOf(model, wishes, 0));
    const drawn: Picture[] = [];
    const asked: number[] = [];
    const begun = performance.now();
    for (const { first, size, wish } of dealt(model, wishes, count)) {
      const request = { ...requestOf(model, wishes, wish), seed: first, count: size, signal };
      drawn.push(...(await finished(pipeline.generate(request))));
      for (let i = 0; i < size; i++) asked.push(wish);
      progress?.(drawn.length);
    }
    const seconds = (performance.now() - begun) / 1000;
    const bytes = drawn[0]!.pixels.length;
    const pixels = new Uint8Array(count * bytes);
    for (const [i, each] of drawn.entries()) pixels.set(each.pixels, i * bytes);
    const told = model.network.condition.kind === "class";
    return { pixels, asked: told ? asked : undefined, seconds, sampling: `${steps} × ${sampler}` };
  });
}

/** Rows of a grid, and pictures in each. */
const [MOST_ROWS, COLUMNS] = [10, 4];

/** A row for each wish. */
export async function drawSampleGrid(
  model: ImageModel,
  wishes: Wishes,
  { backend, signal }: DrawOptions,
): Promise<Picture> {
  return onPipeline(model, backend, async (pipeline) => {
    const drawn: Picture[] = [];
    for (let row = 0; row < Math.min(MOST_ROWS, differentWishes(model, wishes)); row++) {
      const request = { ...requestOf(model, wishes, row), seed: COLUMNS * row, count: COLUMNS };
      drawn.push(...(await finished(pipeline.generate({ ...request, signal }))));
    }
    return pictureGrid(drawn, COLUMNS, { scale: Math.max(1, Math.round(56 / drawn[0]!.width)) });
  });
}

/** The model stays open. */
async function onPipeline<T>(
  model: ImageModel,
  backend: Backend,
  use: (pipeline: Pipeline) => Promise<T>,
): Promise<T> {
  const pipeline = imagePipeline({ ...model, close: () => Promise.resolve() }, backend);
  try {
    return await use(pipeline);
  } finally {
    await pipeline.dispose();
  }
}

/** Runs of pictures of one wish each, evenly many of all. */
function* dealt(model: ImageModel, wishes: Wishes, count: number) {
  const different = differentWishes(model, wishes);
  let first = 0;
  for (let wish = 0; wish < different; wish++) {
    const end = Math.round((count * (wish + 1)) / different);
    while (first < end) {
      const size = Math.min(BATCH, end - first);
      yield { first, size, wish };
      first += size;
    }
  }
}

/** As many captions as are asked for: each costs a run of its own. */
const MOST_CAPTIONS = 100;

function differentWishes({ network }: ImageModel, { captions }: Wishes): number {
  const { condition } = network;
  if (condition.kind === "none") return MOST_ROWS;
  return condition.kind === "class" ? condition.classes : Math.min(MOST_CAPTIONS, captions.length);
}

function requestOf({ network }: ImageModel, { captions }: Wishes, wish: number): GenerateRequest {
  switch (network.condition.kind) {
    case "none":
      return {};
    case "class":
      return { class: wish };
    case "text":
      return { prompt: captions[wish]! };
  }
}
