/** Drawing as a job of the server. */
import type { DrawnPicture } from "../../../src/pipelines/index.ts";
import { readPicture } from "../../../src/pictures/convert.ts";
import type { Picture } from "../../../src/pictures/picture.ts";
import type { Job, JobRequest, ModelInfo } from "../../../src/server/wire.ts";
import type { Settings } from "../settings.ts";
import { base64Of } from "./base64.ts";
import { cancelJob, fileAt, follow, submit } from "./api.ts";

export interface ServedDrawing {
  readonly job: Job;
  /** Pictures, or the first frames of clips. */
  readonly pictures: readonly DrawnPicture[];
  /** The files that the server wrote, with their settings in them. */
  readonly files: readonly Blob[];
}

interface Following {
  readonly signal: AbortSignal;
  readonly onStart?: (job: Job) => void;
  readonly onPreview?: (pictures: readonly Picture[], step: number) => void;
}

/**
 * Draws on the server; a signal that aborts cancels the job there.
 *
 * @throws Error with the server's sentence if it cannot be drawn; the signal's reason if it was cancelled
 */
export async function drawOnServer(
  asked: Settings,
  info: ModelInfo,
  { signal, onStart, onPreview }: Following,
): Promise<ServedDrawing> {
  const accepted = await submit(await requestFor(asked, info, onPreview ? asked.steps : 0));
  const giveUp = () => void cancelJob(accepted.id).catch(() => undefined);
  signal.addEventListener("abort", giveUp);
  if (signal.aborted) giveUp();
  onStart?.(accepted);
  try {
    /** Previews are decoded one after another. */
    let shown = Promise.resolve();
    const job = await follow(accepted, (event) => {
      if (event.kind !== "preview" || !onPreview) return;
      shown = shown.then(async () =>
        onPreview(await Promise.all(event.pictures.map(pictureIn)), event.step),
      );
    });
    await shown;
    if (job.state === "cancelled") {
      signal.throwIfAborted();
      throw new Error("The job was cancelled on the server.");
    }
    if (job.state === "failed") throw new Error(job.error ?? "The job failed.");
    const files = await Promise.all(job.pictures.map(({ url }) => fileAt(url)));
    const pictures = await Promise.all(
      files.map(async (file, i) => ({ ...(await decoded(file)), seed: job.pictures[i]!.seed })),
    );
    return { job, pictures, files };
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}

async function decoded(file: Blob): Promise<Picture> {
  return readPicture(new Uint8Array(await file.arrayBuffer()));
}

const pictureIn = (base64: string) =>
  readPicture(Uint8Array.from(atob(base64), (each) => each.charCodeAt(0)));

/** The body of a request with what the model takes. */
async function requestFor(
  asked: Settings,
  { name, condition, clips, guidable }: ModelInfo,
  previews: number,
): Promise<JobRequest> {
  const { prompt, negativePrompt, seed, count, steps, guidance, sampler, width, height } = asked;
  const { image, mask, strength, lora, loraWeight, frames } = asked;
  const negative = negativePrompt.trim();
  return {
    model: name,
    ...(condition === "text" && { prompt }),
    ...(condition === "class" && { class: asked.class === "" ? "0" : asked.class }),
    ...(negative !== "" && guidance !== 1 && condition === "text" && { negativePrompt: negative }),
    ...(guidable && { guidance }),
    seed,
    count,
    steps,
    sampler,
    width,
    height,
    previews,
    ...(lora !== "" && { loras: [{ name: lora, weight: loraWeight }] }),
    ...(clips && frames > 0 && { frames }),
    ...(clips && { outputFormat: "webp" as const }),
    ...(image && { image: await base64Of(image) }),
    ...(image && !clips && { strength }),
    ...(image && mask && { mask: await base64Of(mask) }),
  };
}
