// The main thread, as an Electron app's main process: it draws nothing itself, and shows progress.
import { writeFile } from "node:fs/promises";
import { Worker } from "node:worker_threads";

const [prompt = "a red heart", seed = "7", file = "picture.png"] = process.argv.slice(2);
const worker = new Worker(new URL("worker.js", import.meta.url));
const png = await new Promise((resolve, reject) => {
  worker.on("error", reject);
  worker.on("message", (message) => {
    if (message.png) resolve(message.png);
    else console.log(`step ${message.step} of ${message.steps}`);
  });
  worker.postMessage({ prompt, seed: Number(seed) });
});
await writeFile(file, png);
worker.postMessage("end");
