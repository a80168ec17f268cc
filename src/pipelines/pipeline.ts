/** What every pipeline offers: a request goes in, pictures come out, step by step. */
import type { Picture } from "../data/dataset.ts";

export interface GenerateRequest {
  /** What to draw, for models that are told in words. */
  readonly prompt?: string | undefined;
  /** What to draw, for models that know classes: a name or a number. */
  readonly class?: string | number | undefined;
  /** What guidance leads away from, in the model's kind of words; nothing in particular unless given. */
  readonly negative?: string | undefined;
  /** Of the first picture, each further one having the next; a whole number of at least 0, and 0 unless given. */
  readonly seed?: number | undefined;
  readonly steps?: number | undefined;
  /** How far to go from what is drawn without a condition through what is drawn with it; 1 is no guidance. */
  readonly guidance?: number | undefined;
  /** Channels that guidance counts for, from the first; all unless given or the model's own custom. */
  readonly guidedChannels?: number | undefined;
  /** In pixels. */
  readonly size?: readonly [height: number, width: number] | undefined;
  /** Pictures; 1 unless given. */
  readonly count?: number | undefined;
  readonly sampler?: string | undefined;
  /** Ends drawing before the next step, by throwing the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** A request with everything decided: the same settings give the same pictures. */
export interface GenerateSettings {
  readonly prompt?: string;
  readonly class?: string;
  readonly negative?: string;
  readonly seed: number;
  readonly steps: number;
  readonly guidance: number;
  readonly guidedChannels?: number;
  readonly size: readonly [height: number, width: number];
  readonly count: number;
  readonly sampler: string;
  /** Sentences on what of the request does not count, such as words beyond the longest prompt. */
  readonly warnings: readonly string[];
}

/** Where drawing stands. */
export interface GenerateStep {
  /** Steps done, from 1. */
  readonly step: number;
  readonly steps: number;
  /** What the pictures look like so far; computed only when asked for. */
  readonly preview: () => Promise<readonly Picture[]>;
}

export interface DrawnPicture extends Picture {
  /** Draws this very picture when it is given alone. */
  readonly seed: number;
}

export interface Pipeline {
  /** What a person calls the model. */
  readonly name: string;
  /**
   * Decides and checks everything, and draws nothing.
   *
   * @throws UsageError that names what cannot be
   */
  settings(request: GenerateRequest): GenerateSettings;
  /**
   * Draws.
   *
   * @example for await (const { step, steps } of pipeline.generate({ prompt: "a red apple" })) console.log(step, steps);
   * @throws UsageError that names what cannot be
   */
  generate(request: GenerateRequest): AsyncGenerator<GenerateStep, readonly DrawnPicture[]>;
  /** Gives memory and files back. */
  dispose(): Promise<void>;
}

/**
 * What a generation returns, its steps passed over.
 *
 * @example const [picture] = await finished(pipeline.generate({ prompt: "a red apple", seed: 7 }));
 */
export async function finished<T>(generation: AsyncGenerator<unknown, T>): Promise<T> {
  for (;;) {
    const next = await generation.next();
    if (next.done) return next.value;
  }
}
