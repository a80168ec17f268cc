/** patchwise draw-worker: draws for the producers of a queue. */
import type { Command } from "commander";
import { modelDigest } from "../pipelines/open/model-digest-node.ts";
import { processesDrawer } from "../bulk/processes.ts";
import { serveQueue } from "../bulk/queue/worker.ts";
import { openPipeline } from "../pipelines/open/open-node.ts";
import { openQueue } from "../queue/connection-node.ts";
import { closing } from "../weights/sources/closing.ts";
import { addBulkOptions, type BulkOptions, openingOptions } from "./bulk-options.ts";
import { showingDownload } from "./download-progress.ts";
import { onDevice } from "./options.ts";
import { progressWriter } from "./progress.ts";
import { untilSignal } from "./signals.ts";
import { version } from "./version.ts";
import { counted } from "../engine/errors.ts";

interface DrawWorkerOptions extends BulkOptions {
  readonly queue: string;
}

export function addDrawWorker(program: Command): void {
  const command = program
    .command("draw-worker")
    .summary("draw for patchwise draw-many on other machines")
    .description(
      "Draws the lines that patchwise draw-many --queue puts on a queue, until Ctrl-C. Any number of workers share the work; that of one " +
        "that ends or is killed goes to the others. A worker takes work for its own model only.",
    )
    .requiredOption("--queue <url>", "the queue, a NATS server such as nats://127.0.0.1:4222");
  addBulkOptions(command).action(drawWorker);
}

async function drawWorker(options: DrawWorkerOptions): Promise<void> {
  const progress = progressWriter(process.stderr);
  const log = (text: string) => progress.line(text);
  await untilSignal(
    async (signal, guard) => {
      const queue = await openQueue(options.queue, { log });
      await closing(queue, async () => {
        const opening = openingOptions(options);
        const name = await onDevice(options.device, () =>
          showingDownload(options.model, async (onProgress) => {
            const pipeline = await openPipeline(options.model, { ...opening, hub: { onProgress } });
            await pipeline.dispose();
            return pipeline.name;
          }),
        );
        const model = {
          model: name,
          digest: await modelDigest(options.model, opening),
          version,
        };
        const drawer = processesDrawer(options.workers, options.batch, options.model, opening);
        await closing(drawer, async () => {
          guard.hold();
          let drawn = 0;
          const onDrawn = () => progress.update(`${counted(++drawn, "picture")} drawn`);
          log(`Drawing with ${name} for ${queue.url}. Ctrl-C ends.`);
          await serveQueue(queue, drawer, { model, signal, log, onDrawn });
        });
      });
    },
    { progress, stopped: "Stopped; what was under way goes to other workers." },
  );
}
