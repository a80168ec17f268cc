/** Drawing the picture of a line, wherever that is done: in this process, or in others. */
import type { PictureMetadata } from "../pictures/metadata.ts";
import { encodeClip } from "../pictures/clip-file-node.ts";
import { encodePicture } from "../pictures/file-node.ts";
import { finished, type Pipeline } from "../pipelines/pipeline.ts";
import { type GenerateRequest, recordedSettings } from "../pipelines/settings.ts";

/** Fields of a picture's metadata other than its settings. */
export type DrawnBy = Pick<PictureMetadata, "model" | "version">;

export interface Drawer {
  /** Pictures that it draws at the same time. */
  readonly places: number;
  /**
   * Draws a picture.
   *
   * @returns the bytes of the file that `patchwise generate` writes with the same settings: a PNG, or an animated WebP of a clip
   * @throws UsageError if the model cannot draw it
   */
  readonly draw: (request: GenerateRequest, by: DrawnBy) => Promise<Uint8Array>;
  /** Ends it; what it draws is lost. */
  readonly close: () => Promise<void>;
}

/** How a picture is drawn, as its file records it. */
export function recordOf(
  pipeline: Pipeline,
  request: GenerateRequest,
  by: DrawnBy,
): PictureMetadata {
  const settings = pipeline.settings(request);
  return { ...recordedSettings(settings, settings.seed), ...by };
}

/**
 * Draws in this process. Pictures of one size share the runs of the network.
 *
 * @param places pictures at the same time
 */
export function pipelineDrawer(pipeline: Pipeline, places: number): Drawer {
  const controller = new AbortController();
  return {
    places,
    async draw(request, by) {
      const metadata = recordOf(pipeline, request, by);
      const { signal } = controller;
      const [picture] = await finished(pipeline.generate({ ...request, signal }));
      const { clip } = picture!;
      if (!clip) return encodePicture(picture!, { format: "png", metadata });
      const { fps } = pipeline.settings(request);
      return encodeClip(clip, { format: "webp", fps: fps!, metadata });
    },
    async close() {
      controller.abort();
      await pipeline.dispose();
    },
  };
}
