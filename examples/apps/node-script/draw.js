import { finished } from "patchwise/pipelines";
import { openPipeline, writePicture } from "patchwise/pipelines/node";

const [prompt = "a red heart", seed = "7", file = "picture.png"] = process.argv.slice(2);
const pipeline = await openPipeline("emoji");
const [picture] = await finished(pipeline.generate({ prompt, seed: Number(seed) }));
await writePicture(file, picture);
await pipeline.dispose();
