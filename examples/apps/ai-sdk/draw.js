import { writeFile } from "node:fs/promises";
import { generateImage } from "ai";
import { imageModel } from "patchwise/ai-sdk";
import { openPipeline } from "patchwise/pipelines/node";

const [prompt = "a red heart", seed = "7", file = "picture.png"] = process.argv.slice(2);
const pipeline = await openPipeline("emoji", { worker: true });
const { image } = await generateImage({
  model: imageModel(pipeline),
  prompt,
  seed: Number(seed),
  providerOptions: { patchwise: { steps: 20 } }, // any other setting of generate
});
await writeFile(file, image.uint8Array);
await pipeline.dispose();
