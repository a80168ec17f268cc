/** What every pipeline offers: a request goes in, pictures come out, step by step. */
import type { Picture } from "../pictures/picture.ts";

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
  /** Of models of tokens: how freely these are drawn, in the first step and in the last; 0 takes the likeliest. */
  readonly temperature?: readonly [first: number, last: number] | undefined;
  /** Of the times of a rectified flow, in place of the model's own: more steps at high noise above 1, for larger pictures. */
  readonly shift?: number | undefined;
  /** Guides only where the ratio of noise to signal is in (above, upTo] (Kynkäänniemi et al., 2024). */
  readonly guidanceInterval?: readonly [above: number, upTo: number] | undefined;
  /** Share, from 0 to 1, to which guided predictions get the contrast of unguided ones back (Lin et al., 2024). */
  readonly rescale?: number | undefined;
  /** Leads away from what the network says without some of its layers; for an MMDiT. */
  readonly skipLayers?: Partial<SkipLayers> | undefined;
  /** Draws on from this picture, which is of the size that is drawn. */
  readonly image?: Picture | undefined;
  /**
   * Share of the steps that are gone through, in (0, 1], from the image with as much noise as is left there: 1 keeps nothing
   * of it. 0.6 unless given; 1 with a mask.
   */
  readonly strength?: number | undefined;
  /** What of the image is drawn anew: white; black stays as it is, and grey in between. Of the image's size. */
  readonly mask?: Picture | undefined;
  /** Ends drawing before the next step, by throwing the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Skip-layer guidance, as Stable Diffusion 3.5 is drawn with. */
export interface SkipLayers {
  /** From 0. */
  readonly layers: readonly number[];
  /** How far to go away from the prediction without them; 2.8 unless given. */
  readonly scale: number;
  /** In the steps whose number, from 0, is more than this share of all; 0.01 unless given. */
  readonly from: number;
  /** And less than this share; 0.2 unless given. */
  readonly to: number;
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
  readonly temperature?: readonly [first: number, last: number];
  readonly shift?: number;
  readonly guidanceInterval?: readonly [above: number, upTo: number];
  readonly rescale?: number;
  readonly skipLayers?: SkipLayers;
  /** Of pictures that are drawn on from an image. */
  readonly strength?: number;
  /** Whether a mask says what of the image is drawn anew. */
  readonly masked?: boolean;
  /** LoRA that was mixed into the model when it was opened. */
  readonly loras?: readonly { readonly file: string; readonly weight: number }[];
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
