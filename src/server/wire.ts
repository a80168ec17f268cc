/**
 * What the server says over HTTP, for programs that talk to it: plain data, which JSON carries. Requests are the settings of
 * `pipelines/settings.ts` with the fields of `JobRequest` beside them; `/openapi.json` has their schema.
 */
import type { GenerateRequest, GenerateSettings } from "../pipelines/settings.ts";
import type { TrainingConfig, TrainingConfigInput } from "../training/config/config.ts";

export const jobStates = [
  "queued",
  "running",
  "paused",
  "succeeded",
  "failed",
  "cancelled",
] as const;

/**
 * A job is queued, then running, and then has one of the last three states for good. After a restart it may be queued again, and a
 * training may be paused.
 */
export type JobState = (typeof jobStates)[number];

export const outputFormats = ["png", "jpeg", "webp"] as const;

/** The format of a job's pictures. Clips are animated: as PNG or WebP. */
export type OutputFormat = (typeof outputFormats)[number];

/** The name of a LoRA among those of `GET /api/models`, and the scale of its contribution, 1 unless given. */
export interface LoraChoice {
  readonly name: string;
  readonly weight?: number | undefined;
}

/** The body of `POST /api/jobs` for a drawing. */
export interface JobRequest extends Omit<
  GenerateRequest,
  "signal" | "onProgress" | "image" | "mask" | "lastImage" | "extend" | "references"
> {
  /** Name of a model among those of `GET /api/models`; the first of them unless given. */
  readonly model?: string | undefined;
  readonly loras?: readonly LoraChoice[] | undefined;
  /** Base64 of a picture file, or a data URL, to start from. */
  readonly image?: string | undefined;
  /** Base64 of a picture file, or a data URL: the last frame of a clip. */
  readonly lastImage?: string | undefined;
  /** Base64 of an animated file, or a data URL: the clip to go on from. */
  readonly extend?: string | undefined;
  /** Base64 of a picture file, or a data URL: white, or transparent, where the image is drawn anew. */
  readonly mask?: string | undefined;
  /** Base64 of picture files, or data URLs, that the prompt speaks of, for models whose `references` is true; at most 10. */
  readonly references?: readonly string[] | undefined;
  /** Number of previews, spread evenly over the steps; 0 unless given. */
  readonly previews?: number | undefined;
  /** "png" unless given. */
  readonly outputFormat?: OutputFormat | undefined;
}

/** The body of `POST /api/jobs` for a training. */
export interface TrainingRequest {
  readonly kind: "train";
  /** The name under which the model is drawn with afterwards: letters, digits, "-", "_" and ".". */
  readonly name: string;
  /** Base64 of picture files, or data URLs, all with a caption or none. */
  readonly pictures: readonly { readonly image: string; readonly caption?: string | undefined }[];
  /** The fields of a config of `patchwise train` that name no files; `training.steps` says how long to train. */
  readonly config: Pick<
    TrainingConfigInput,
    "picture" | "model" | "diffusion" | "training" | "sampling" | "samples" | "validation" | "seed"
  >;
}

/** A finished picture of a job. */
export interface JobPicture {
  /** Path of the file on the server, such as "/api/jobs/ID/pictures/0". */
  readonly url: string;
  /** The seed with which this picture is drawn again by itself. */
  readonly seed: number;
  /** In pixels. */
  readonly width: number;
  readonly height: number;
}

/** Fields of every job. */
interface CommonJob {
  readonly id: string;
  readonly state: JobState;
  /** Times in milliseconds since 1970. */
  readonly created: number;
  readonly started?: number | undefined;
  readonly ended?: number | undefined;
  /** Number of steps that are done, and of all. */
  readonly step: number;
  readonly steps: number;
  /** For queued jobs: how many are before it. */
  readonly position?: number | undefined;
  /** Why it failed, in a sentence. */
  readonly error?: string | undefined;
}

/** The answer of `POST /api/jobs` and `GET /api/jobs/:id`; `GET /api/jobs` has `{ jobs: AnyJob[] }`, the newest first. */
export type AnyJob = Job | TrainingJob;

/** A drawing. */
export interface Job extends CommonJob {
  readonly kind: "draw";
  readonly model: string;
  readonly loras: readonly LoraChoice[];
  /** All settings with which it is drawn, defaults filled in. */
  readonly settings: GenerateSettings;
  readonly outputFormat: OutputFormat;
  /** Empty until it has succeeded. */
  readonly pictures: readonly JobPicture[];
}

/** A training. Its model can be drawn with, under its name, once it has succeeded. */
export interface TrainingJob extends CommonJob {
  readonly kind: "train";
  readonly name: string;
  /** All settings, defaults filled in. */
  readonly config: TrainingConfig;
  /** Number of pictures that it trains on. */
  readonly pictures: number;
  /** Pictures that were drawn on the way. */
  readonly samples: readonly TrainingSamples[];
  /** Files of the model; empty until it has succeeded. */
  readonly files: readonly { readonly name: string; readonly url: string }[];
}

/** Pictures that a model drew after a number of steps, always with the same seeds. */
export interface TrainingSamples {
  readonly step: number;
  /** Paths of PNG files on the server: as many of each prompt as of any other. */
  readonly urls: readonly string[];
  /** Prompts that they show; empty for a model without any. */
  readonly of: readonly string[];
}

/**
 * The data of the server-sent events of `GET /api/jobs/:id/events`, whose event name is `kind`. The first is always a job; the
 * stream ends behind the job event whose state is final.
 */
export type JobEvent<J extends AnyJob = AnyJob> =
  | { readonly kind: "job"; readonly job: J }
  | {
      readonly kind: "progress";
      readonly step: number;
      readonly steps: number;
      /** For trainings: the loss of the step, and how fast it goes. */
      readonly loss?: number;
      readonly imagesPerSecond?: number;
      readonly secondsLeft?: number;
    }
  | ({ readonly kind: "sample" } & TrainingSamples)
  /** A sentence on what goes on in a training, or how large its model is. */
  | { readonly kind: "note"; readonly message?: string; readonly parameters?: number }
  /** PNG files in base64, one for each picture, or the first frame of each clip. */
  | {
      readonly kind: "preview";
      readonly step: number;
      readonly steps: number;
      readonly pictures: readonly string[];
    };

/** What a model takes, for forms. */
export interface ModelInfo {
  readonly name: string;
  /** What it draws from: "text" for prompts. */
  readonly condition: "none" | "class" | "text";
  /** Names of the classes, for models of classes that have names. */
  readonly classes?: readonly string[] | undefined;
  /** The kind of values that it draws: continuous numbers, or discrete tokens, which have samplers and settings of their own. */
  readonly process: "continuous" | "tokens";
  /** The samplers that it may be drawn with. */
  readonly samplers: readonly string[];
  /** The sizes that it draws, in pixels: sides are multiples of `unit`, and at most `most` if given; or the default size alone. */
  readonly sizes: {
    readonly unit: number;
    readonly most?: number | undefined;
    readonly fixed: boolean;
  };
  /** True if guidance has an effect. */
  readonly guidable: boolean;
  /** True if it takes reference pictures. */
  readonly references: boolean;
  /** True if its pictures are clips. */
  readonly clips: boolean;
  /** Settings of a request that gives none. */
  readonly defaults: Pick<
    GenerateSettings,
    "steps" | "sampler" | "guidance" | "width" | "height" | "frames" | "fps"
  >;
}

/** The answer of `GET /api/models`. */
export interface ModelList {
  readonly models: readonly ModelInfo[];
  /** Names of the LoRAs in the server's folder. */
  readonly loras: readonly string[];
  /** The most that one request may ask for. */
  readonly limits: Limits;
}

/** The most that one request may ask for. */
export interface Limits {
  /** Pixels of one picture, or of all frames of a clip. */
  readonly pixels: number;
  readonly steps: number;
  /** Pictures of one request. */
  readonly count: number;
  /** Bytes of a request's body. */
  readonly body: number;
  /** Jobs that wait or run; beyond it requests are answered by 429 with Retry-After. */
  readonly queue: number;
  /** Characters of a prompt. */
  readonly prompt: number;
}

/** The body of every answer that is an error, as in OpenAI's API. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: "invalid_request_error" | "rate_limit_error" | "server_error";
    readonly code: string | null;
    /** The setting at fault, if it is known. */
    readonly param: string | null;
  };
}
