/** The entry of the worker thread that `openLoader` starts. */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { failure } from "../../engine/runtime/worker-protocol.ts";
import { openLatentFolder } from "../latents/folder-node.ts";
import { latentLayout } from "../latents/latents.ts";
import { openData } from "../open-node.ts";
import { batchReader } from "./batch-reader.ts";
import { pictureLayout } from "./batches.ts";
import type { FromLoader, LoaderSettings, ToLoader } from "./loader-node.ts";

await produce(workerData as LoaderSettings, parentPort!);

/** Makes batches ahead of those that were taken, until it is told to stop. */
async function produce(settings: LoaderSettings, port: MessagePort) {
  const { data: config, shape, from, latents } = settings;
  const closing = new AbortController();
  /** Index of the first batch that may not be made yet. */
  let allowed = from + settings.ahead;
  let onMessage = () => {};
  port.on("message", (message: ToLoader) => {
    if (message === "taken") allowed++;
    else closing.abort();
    onMessage();
  });
  const post = (message: FromLoader, transfer: readonly ArrayBuffer[] = []) =>
    port.postMessage(message, [...transfer]);
  const makeBatches = async () => {
    const data = latents ? await openLatentFolder(latents.folder) : await openData(config, shape);
    const layout = latents ? latentLayout(latents) : pictureLayout(shape);
    try {
      const { name, count, classes, captioned, heldOut, survey, memory = 0 } = data;
      post({ kind: "open", info: { name, count, classes, captioned, heldOut }, survey, memory });
      const { flip } = config;
      const reader = batchReader(data, { ...settings, layout, flip, signal: closing.signal });
      for (let index = from; !closing.signal.aborted;) {
        if (index < allowed) {
          const { batch, skipped } = await reader.read(index++);
          const buffers = [batch.pixels.buffer, ...(batch.labels ? [batch.labels.buffer] : [])];
          post({ kind: "batch", batch, skipped }, buffers as ArrayBuffer[]);
        } else await new Promise<void>((resolve) => (onMessage = resolve));
      }
    } finally {
      await data.close();
    }
  };
  try {
    await makeBatches();
  } catch (error) {
    if (!closing.signal.aborted) post(failure(error));
  } finally {
    // The thread ends by itself once its port is closed.
    port.close();
  }
}
