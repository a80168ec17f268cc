/**
 * The entry point of the processes that draw. Each holds one model with its LoRAs, and draws all of its jobs at the same time, which
 * therefore share the runs of the network.
 */
import { join } from "node:path";
import { tellParent } from "../engine/runtime/parent-node.ts";
import { failure } from "../engine/runtime/worker-protocol.ts";
import { readClip, writeClip } from "../pictures/clip-file-node.ts";
import { readPictureFile } from "../pictures/decode-node.ts";
import { writePicture } from "../pictures/file-node.ts";
import { readMaskFile } from "../pictures/mask-node.ts";
import { toPng } from "../pictures/png.ts";
import { openPipeline } from "../pipelines/open/open-node.ts";
import type { DrawnPicture, Pipeline } from "../pipelines/pipeline.ts";
import { type GenerateRequest, recordedSettings } from "../pipelines/settings.ts";
import type { DrawMessage, FromDrawing, OpenMessage, ToDrawing } from "./drawing-messages.ts";
import { type GivenName, referenceFile, type StoredPicture } from "./job-store.ts";

const tell: (message: FromDrawing) => void = tellParent;

/** The model, which is opened before anything is drawn. A process that cannot open it draws nothing, and is ended. */
let opening: Promise<Pipeline> | undefined;
const drawing = new Map<string, AbortController>();

process.on("message", (message: ToDrawing) => {
  if (message.kind === "open") void open(message);
  else if (message.kind === "draw") void draw(message);
  else drawing.get(message.id)?.abort();
});
// A process that draws ends with the server, and not before it: Ctrl-C, and those who stop services, signal both.
process.once("disconnect", () => process.exit());
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => {});

async function open({ source, loras, memory }: OpenMessage): Promise<void> {
  try {
    opening = openPipeline(source, { loras, memory });
    await opening;
    tell({ kind: "opened" });
  } catch (error) {
    tell({ kind: "refused", failure: failure(error) });
  }
}

async function draw(message: DrawMessage): Promise<void> {
  const { id } = message;
  const controller = new AbortController();
  drawing.set(id, controller);
  const pipeline = await opening!.catch(() => undefined);
  if (!pipeline) return;
  try {
    const drawn = await generated(message, pipeline, controller.signal);
    const pictures: StoredPicture[] = [];
    for (const [i, picture] of drawn.entries()) {
      pictures.push(await written(picture, i, message));
    }
    tell({ kind: "drawn", id, pictures });
  } catch (error) {
    if (controller.signal.aborted) tell({ kind: "cancelled", id });
    else tell({ kind: "failed", id, failure: failure(error) });
  } finally {
    drawing.delete(id);
  }
}

async function generated(
  { id, settings, folder, given, previews }: DrawMessage,
  from: Pipeline,
  signal: AbortSignal,
): Promise<readonly DrawnPicture[]> {
  const starts: Partial<Pick<GenerateRequest, GivenName>> = {};
  for (const name of given)
    Object.assign(starts, { [name]: await readers[name](join(folder, name)) });
  const references = await Promise.all(
    Array.from({ length: settings.referred ?? 0 }, (_, i) =>
      readPictureFile(join(folder, referenceFile(i))),
    ),
  );
  const beside = references.length > 0 ? { references } : {};
  const generation = from.generate({ ...settings, ...starts, ...beside, signal });
  for (;;) {
    const next = await generation.next();
    if (next.done) return next.value;
    const { step, steps, preview } = next.value;
    tell({ kind: "progress", id, step, steps });
    if (step === steps || !isShown(step, steps, previews)) continue;
    const pictures = await preview();
    // Compression needs no turn of this loop, so that the next step need not wait for it.
    void Promise.all(pictures.map((picture) => toPng(picture))).then((files) =>
      tell({ kind: "preview", id, step, steps, pictures: files }),
    );
  }
}

/** Functions that read the files that a drawing starts from. */
const readers: { readonly [N in GivenName]: (path: string) => Promise<GenerateRequest[N]> } = {
  image: (path) => readPictureFile(path),
  mask: (path) => readMaskFile(path),
  lastImage: (path) => readPictureFile(path),
  extend: async (path) => (await readClip(path)).clip,
};

/** Returns true if a step is one of `previews` that are spread evenly over all steps but the last. */
function isShown(step: number, steps: number, previews: number): boolean {
  const upTo = (done: number) => Math.floor((done * (previews + 1)) / steps);
  return upTo(step) > upTo(step - 1);
}

async function written(
  picture: DrawnPicture,
  index: number,
  { settings, folder, outputFormat, model, version }: DrawMessage,
): Promise<StoredPicture> {
  const file = `${index}.${outputFormat === "jpeg" ? "jpg" : outputFormat}`;
  const path = join(folder, file);
  const { seed, width, height, clip } = picture;
  const metadata = { ...recordedSettings(settings, seed), model, version };
  if (clip) await writeClip(path, clip, settings.fps!, metadata);
  else await writePicture(path, picture, metadata);
  return { file, seed, width, height };
}
