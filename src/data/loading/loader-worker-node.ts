/** The worker thread of the loader: decodes batches ahead of the training loop, up to a limit. */
import { parentPort, workerData } from "node:worker_threads";
import { failure } from "../../engine/runtime/worker-protocol.ts";
import { batchReader } from "./batch-reader.ts";
import { pictureLayout } from "./batches.ts";
import { openLatentFolder } from "../latents/folder-node.ts";
import { latentLayout } from "../latents/latents.ts";
import type { FromLoader, LoaderSettings, ToLoader } from "./loader-node.ts";
import { openData } from "../open-node.ts";

const settings = workerData as LoaderSettings;
const port = parentPort!;
const closing = new AbortController();

/** Index of the first batch that may not be made yet. */
let allowed = settings.from + settings.ahead;
let onMessage = () => {};

port.on("message", (message: ToLoader) => {
  if (message === "taken") allowed++;
  else closing.abort();
  onMessage();
});

async function produce(): Promise<void> {
  const { data: config, shape, from, latents } = settings;
  const data = latents ? await openLatentFolder(latents.folder) : await openData(config, shape);
  const layout = latents ? latentLayout(latents) : pictureLayout(shape);
  try {
    const { name, count, classes, captioned, memory = 0 } = data;
    post({ kind: "open", info: { name, count, classes, captioned }, memory });
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
}

function post(message: FromLoader, transfer: readonly ArrayBuffer[] = []): void {
  port.postMessage(message, [...transfer]);
}

// The thread ends by itself once its port is closed.
produce()
  .catch((error: unknown) => {
    if (!closing.signal.aborted) post(failure(error));
  })
  .finally(() => port.close());
