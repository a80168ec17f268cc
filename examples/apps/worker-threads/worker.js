import { parentPort } from "node:worker_threads";
import { toPng } from "patchwise/pictures";
import { finished } from "patchwise/pipelines";
import { openPipeline } from "patchwise/pipelines/node";

const opening = openPipeline("emoji");

parentPort.on("message", async (request) => {
  const pipeline = await opening;
  if (request === "end") {
    await pipeline.dispose();
    parentPort.close();
    return;
  }
  const onProgress = (progress) => parentPort.postMessage(progress);
  const [picture] = await finished(pipeline.generate({ ...request, onProgress }));
  parentPort.postMessage({ png: await toPng(picture) });
});
