/** Reads the examples of a batch, caches decoded pictures, and replaces examples that cannot be read. */
import { FormatError } from "../../engine/errors.ts";
import { closing } from "../../weights/sources/closing.ts";
import { drawing, type Layout } from "./batches.ts";
import type { DataSet, Example, Survey } from "../dataset.ts";

/** Pictures with their labels and captions. */
export interface Batch {
  readonly index: number;
  /** [batch, height, width, channels], or [batch, frames, …] of clips; for a latent cache, the bytes of the latents. */
  readonly pixels: Uint8Array;
  /** The frames that each clip has, the others repeating its last one; undefined for pictures. */
  readonly lengths?: Int32Array | undefined;
  /** Class indices, −1 for unknown labels; undefined for a data set without classes. */
  readonly labels: Int32Array | undefined;
  /** One caption per picture, "" for none; undefined for a data set without captions. */
  readonly captions: readonly string[] | undefined;
}

/** An example that could not be read. */
export interface Skipped {
  readonly name: string;
  readonly reason: string;
}

/** The batches of a training, in order. */
export interface Loader {
  readonly info: Pick<DataSet, "name" | "count" | "classes" | "captioned" | "heldOut">;
  readonly survey?: Survey | undefined;
  /** The most bytes that it holds: decoded pictures, batches made ahead, and what the data set itself keeps. */
  readonly memory: number;
  /**
   * The next batch; batch i is a pure function of the data, the settings, the seed and i.
   *
   * @throws FormatError when too many pictures cannot be read
   */
  next(): Promise<Batch>;
  /** The pictures of the batches so far that could not be read and were replaced. */
  skipped(): readonly Skipped[];
  close(): Promise<void>;
}

/** Reads the next batches and closes their loader. */
export async function takeBatches<T = Batch>(
  loader: Loader,
  count: number,
  use: (batch: Batch, index: number) => T = (batch) => batch as T,
): Promise<readonly T[]> {
  return closing(loader, async () => {
    const taken: T[] = [];
    for (let i = 0; i < count; i++) taken.push(use(await loader.next(), i));
    return taken;
  });
}

export interface BatchReader {
  /** A batch, with the examples that turned out to be unreadable while it was made. */
  read(index: number): Promise<{ readonly batch: Batch; readonly skipped: readonly Skipped[] }>;
}

/** The rows of a batch that one of several processes computes. */
export interface Rows {
  readonly from: number;
  readonly count: number;
}

export interface ReadOptions {
  readonly layout: Layout;
  readonly batch: number;
  /** The only rows to read; the others stay empty. All unless given. */
  readonly rows?: Rows | undefined;
  readonly seed: number;
  readonly flip: boolean;
  /** The most bytes of decoded pictures to cache. */
  readonly cache: number;
  readonly signal: AbortSignal;
}

// Pictures are decoded in Node's native thread pool, which has four threads.
const PARALLEL = 8;

const UNTRIED = 0;
const READ = 1;
const UNREADABLE = 2;

// A few damaged files are normal, but a tenth of all means that something is wrong with the data set. In a small one, whose
// tenth is a file or two, it takes more than half.
const TOLERATED_SHARE = 0.1;
const TOLERATED_COUNT = 7;

/**
 * Creates a reader of batches. An unreadable example is replaced by another one, which depends only on the
 * files.
 *
 * @throws FormatError from `read` if more than a tenth of the examples so far, and at least 8, cannot be
 *   read, or more than half of all
 */
export function batchReader(data: DataSet, options: ReadOptions): BatchReader {
  const { layout, batch: size, signal } = options;
  const { from, count } = options.rows ?? { from: 0, count: size };
  const { bytes } = layout;
  const draw = drawing(options.seed, data.count, options);
  const readable = readableExamples(data, options.cache);
  return {
    async read(index) {
      const pixels = new Uint8Array(size * bytes);
      const labels = data.classes && new Int32Array(size);
      const lengths = layout.frames === undefined ? undefined : new Int32Array(size);
      const captions = data.captioned ? Array.from({ length: size }, () => "") : undefined;
      await inParallel(count, async (row) => {
        signal.throwIfAborted();
        const i = from + row;
        const drawn = draw(index * size + i);
        const example = await readable.example(drawn.index);
        const target = pixels.subarray(i * bytes, (i + 1) * bytes);
        const shown = layout.put(example.pixels, drawn.flipped, target, drawn.start);
        if (lengths) lengths[i] = shown;
        if (labels) labels[i] = example.label ?? -1;
        if (captions) captions[i] = example.captions[drawn.caption(example.captions.length)] ?? "";
      });
      return {
        batch: { index, pixels, lengths, labels, captions },
        skipped: readable.newlySkipped(),
      };
    },
  };
}

/** Reads the batches of an open data set in this thread: the same ones that `openLoader` reads in another. */
export function directLoader(
  data: DataSet,
  { from, ...options }: Omit<ReadOptions, "cache" | "signal"> & { readonly from: number },
): Loader {
  const reader = batchReader(data, { ...options, cache: 0, signal: new AbortController().signal });
  const skipped: Skipped[] = [];
  const { name, count, classes, captioned, heldOut, survey, memory = 0 } = data;
  let index = from;
  return {
    survey,
    info: { name, count, classes, captioned, heldOut },
    memory: memory + options.batch * options.layout.bytes,
    async next() {
      const read = await reader.read(index++);
      skipped.push(...read.skipped);
      return read.batch;
    },
    skipped: () => [...skipped],
    close: () => Promise.resolve(),
  };
}

/**
 * Runs tasks with limited concurrency. After a failure it starts no more tasks and waits for the running
 * ones.
 */
async function inParallel(count: number, work: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    try {
      while (next < count) await work(next++);
    } finally {
      next = count;
    }
  };
  const workers = Array.from({ length: Math.min(PARALLEL, count) }, worker);
  await Promise.allSettled(workers);
  await Promise.all(workers);
}

interface ReadableExamples {
  /** Reads the example, or a readable one in its place. */
  example(index: number): Promise<Example>;
  /** The examples found unreadable since the last call, in the order of the data set. */
  newlySkipped(): Skipped[];
}

function readableExamples(data: DataSet, limit: number): ReadableExamples {
  const state = new Uint8Array(data.count);
  const stride = strideThrough(data.count);
  const reasons = new Map<number, string>();
  const cached = new Map<number, Example>();
  let cachedBytes = 0;
  let tried = 0;
  let fresh: number[] = [];

  /** Each epoch visits every example once, so all entries are equally useful and none is evicted. */
  const keep = (index: number, example: Example) => {
    const bytes = bytesOf(example);
    if (cached.has(index) || cachedBytes + bytes > limit) return;
    cached.set(index, example);
    cachedBytes += bytes;
  };
  const settle = (index: number, outcome: typeof READ | typeof UNREADABLE) => {
    if (state[index] !== UNTRIED) return;
    state[index] = outcome;
    tried++;
    if (outcome === UNREADABLE) fresh.push(index);
  };
  const attempt = async (index: number): Promise<Example | undefined> => {
    const known = cached.get(index);
    if (known) return known;
    let example: Example | undefined;
    try {
      example = await data.example(index);
      settle(index, READ);
      keep(index, example);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      reasons.set(index, error.message);
      settle(index, UNREADABLE);
    }
    // Also after a readable one, which may be the last to be tried.
    if (reasons.size > 0) refuseTooMany(data, [...reasons.keys()], tried, tried === data.count);
    return example;
  };
  return {
    async example(index) {
      for (let step = 0; step < data.count; step++) {
        const at = (index + step * stride) % data.count;
        const example = state[at] === UNREADABLE ? undefined : await attempt(at);
        if (example) return example;
      }
      throw new FormatError(
        `${data.count === 1 ? `The only picture of ${data.name} cannot` : `None of the ${data.count} pictures of ${data.name} can`} be read: ${[...reasons.values()][0]}`,
      );
    },
    newlySkipped() {
      const indices = fresh.sort((a, b) => a - b);
      fresh = [];
      return indices.map((index) => ({ name: data.nameOf(index), reason: reasons.get(index)! }));
    },
  };
}

/**
 * Visits all of `count` places, starting from one. The steps are long, because damaged files are often
 * neighbours, and trying neighbours one after another would replace many of them by the same picture.
 */
function strideThrough(count: number): number {
  // With steps of the golden ratio, any few consecutive places are far apart.
  let stride = Math.max(1, Math.round(count * 0.618));
  while (greatestCommonDivisor(stride, count) > 1) stride++;
  return stride;
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/**
 * @param all whether there are no more examples to try
 * @throws FormatError if more than a tenth of the examples so far, and at least 8, are unreadable, or more than half of all
 */
export function refuseTooMany(
  data: Pick<DataSet, "name" | "nameOf">,
  unreadable: readonly number[],
  tried: number,
  all = false,
): void {
  const half = all && 2 * unreadable.length > tried && unreadable.length < tried;
  const tenth = unreadable.length > TOLERATED_COUNT && unreadable.length > TOLERATED_SHARE * tried;
  if (!half && !tenth) return;
  const names = unreadable.slice(0, 3).map((index) => data.nameOf(index));
  throw new FormatError(
    `${unreadable.length} of the ${tried} pictures of ${data.name} that were tried cannot be read (${names.join(", ")}, …), which is more than one in ${half ? "two" : "ten"}; repair or remove them.`,
  );
}

/** Memory of a cached example in addition to its pixels and captions: three objects and an entry of a Map. */
export const EXAMPLE_BYTES = 200;

/** Memory of an example in bytes; strings take two bytes a character. */
function bytesOf({ pixels, captions }: Example): number {
  const texts = captions.reduce((sum, text) => sum + 2 * text.length + 32, 0);
  return EXAMPLE_BYTES + pixels.byteLength + texts;
}
