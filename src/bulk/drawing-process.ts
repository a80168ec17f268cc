/** The entry point of the processes that draw lines, for `--workers`. Each holds the model once. */
import { failure } from "../engine/runtime/worker-protocol.ts";
import { openPipeline } from "../pipelines/open/open-node.ts";
import { type Drawer, pipelineDrawer } from "./drawer.ts";
import type { FromDrawing, ToDrawing } from "./drawing-messages.ts";

const tell = (message: FromDrawing) => process.send?.(message);

let opening: Promise<Drawer> | undefined;

process.on("message", (message: ToDrawing) => {
  if (message.kind === "open") {
    // As many places as it is given lines at the same time.
    opening = openPipeline(message.source, message.options).then((pipeline) =>
      pipelineDrawer(pipeline, Infinity),
    );
    // Each line that it is given fails with the reason.
    opening.catch(() => {});
  } else void draw(message);
});
// It ends with the process that started it: Ctrl-C in a terminal signals both.
process.once("disconnect", () => process.exit());
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});

async function draw({ id, request, by }: Extract<ToDrawing, { kind: "draw" }>): Promise<void> {
  try {
    const drawer = await opening!;
    tell({ kind: "drawn", id, file: await drawer.draw(request, by) });
  } catch (error) {
    tell({ kind: "failed", id, failure: failure(error) });
  }
}
