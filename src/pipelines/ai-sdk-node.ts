/**
 * Pipelines as image models of the Vercel AI SDK (https://ai-sdk.dev), for its `generateImage`. The interface is written out here, so that
 * nothing of the SDK has to be installed.
 */
import { FormatError, UsageError } from "../engine/errors.ts";
import { requireKind } from "../engine/options.ts";
import { readPicture } from "../pictures/decode-node.ts";
import { readMask } from "../pictures/mask-node.ts";
import { toPng } from "../pictures/png.ts";
import { finished, type Pipeline } from "./pipeline.ts";
import type { GenerateRequest } from "./settings.ts";

/** The options that `generateImage` gives a model (ImageModelV3CallOptions and ImageModelV4CallOptions). */
export interface ImageCallOptions {
  /** What to draw; required by models that take prompts. */
  readonly prompt: string | undefined;
  /** Number of pictures. */
  readonly n: number;
  /** Width and height in pixels; the model's own unless given. */
  readonly size: `${number}x${number}` | undefined;
  /** Not supported, which a warning tells: give `size`. */
  readonly aspectRatio: string | undefined;
  /** Seed of the first picture; random unless given. */
  readonly seed: number | undefined;
  /** At most one picture, to start from. */
  readonly files: readonly ImageFile[] | undefined;
  /** White or transparent where the picture is drawn anew. */
  readonly mask: ImageFile | undefined;
  /** Any other setting of `generate`, under `patchwise`. */
  readonly providerOptions: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  /** Ends drawing before the next step. */
  readonly abortSignal?: AbortSignal | undefined;
}

export type ImageFile =
  | { readonly type: "file"; readonly mediaType: string; readonly data: string | Uint8Array }
  | { readonly type: "url"; readonly url: string };

export type ImageWarning =
  | { readonly type: "unsupported"; readonly feature: string; readonly details?: string }
  | { readonly type: "other"; readonly message: string };

/** What a call returns. */
export interface ImageResult {
  /** PNG files. */
  images: Uint8Array[];
  warnings: ImageWarning[];
  /** The seed of each picture, with which it is drawn again by itself, and its size in pixels. */
  providerMetadata: {
    patchwise: { images: { seed: number; width: number; height: number }[] };
  };
  response: { timestamp: Date; modelId: string; headers: undefined };
}

/** The version of the AI SDK's interface for image models: the AI SDK 6 takes v3, and the AI SDK 7 both. */
export type ImageModelVersion = "v3" | "v4";

/** An image model, as the AI SDK takes it (ImageModelV3 and ImageModelV4). */
export interface AiSdkImageModel<V extends ImageModelVersion> {
  readonly specificationVersion: V;
  readonly provider: string;
  readonly modelId: string;
  readonly maxImagesPerCall: number;
  doGenerate(options: ImageCallOptions): Promise<ImageResult>;
}

/**
 * Makes an image model of a pipeline.
 *
 * @example
 * const model = imageModel(await openPipeline("emoji", { worker: true }));
 * const { image } = await generateImage({ model, prompt: "a red heart", seed: 7 });
 */
export function imageModel<V extends ImageModelVersion = "v4">(
  pipeline: Pipeline,
  {
    specificationVersion = "v4" as V,
  }: {
    /** "v4" for the AI SDK 7, which is the default; "v3" works with the AI SDK 6 and 7. */
    readonly specificationVersion?: V;
  } = {},
): AiSdkImageModel<V> {
  requireKind("imageModel: the pipeline", pipeline, {
    expected: 'a pipeline, such as await openPipeline("emoji")',
    accepts: (value) => typeof value === "object" && value !== null && "generate" in value,
  });
  return {
    specificationVersion,
    provider: "patchwise",
    modelId: pipeline.name,
    // The SDK would give each of several calls the same seed, so all pictures of a request are one call.
    maxImagesPerCall: Number.MAX_SAFE_INTEGER,
    async doGenerate(options) {
      const request = await requestOf(options);
      const { warnings } = pipeline.settings(request);
      const pictures = await finished(pipeline.generate(request));
      const images: Uint8Array[] = [];
      for (const picture of pictures) images.push(await toPng(picture));
      return {
        images,
        warnings: [
          ...(options.aspectRatio === undefined ? [] : [aspectRatioWarning]),
          ...warnings.map((message) => ({ type: "other", message }) as const),
        ],
        providerMetadata: {
          patchwise: {
            images: pictures.map(({ seed, width, height }) => ({ seed, width, height })),
          },
        },
        response: { timestamp: new Date(), modelId: pipeline.name, headers: undefined },
      };
    },
  };
}

const aspectRatioWarning: ImageWarning = {
  type: "unsupported",
  feature: "aspectRatio",
  details: "Give size, such as 64x64, instead.",
};

/** @throws UsageError if an option cannot be followed; FormatError if a file is no picture */
async function requestOf({
  prompt,
  n,
  size,
  seed = crypto.getRandomValues(new Uint32Array(1))[0]!,
  files = [],
  mask,
  providerOptions,
  abortSignal,
}: ImageCallOptions): Promise<GenerateRequest> {
  if (files.length > 1) {
    throw new UsageError(
      `A picture is drawn from one picture at most, got ${files.length} files; give one.`,
    );
  }
  const start = "the picture to start from";
  const image = files[0] && (await readPicture(bytesIn(files[0], start), { name: start }));
  return {
    ...providerOptions["patchwise"],
    prompt,
    count: n,
    ...(size !== undefined && { size }),
    seed,
    ...(image && { image }),
    ...(mask && { mask: await readMask(bytesIn(mask, "the mask"), "the mask") }),
    signal: abortSignal,
  };
}

function bytesIn(file: ImageFile, name: string): Uint8Array {
  if (file.type === "url") {
    throw new UsageError(`${name} was given as the address ${file.url}; give its bytes.`);
  }
  const { data, mediaType } = file;
  if (!mediaType.startsWith("image/")) {
    throw new FormatError(`${name} is of the type ${mediaType}; give an image, such as image/png.`);
  }
  return typeof data === "string" ? Buffer.from(data, "base64") : data;
}
