import { finished } from "./src/pipelines/index.ts";
import { openPipeline } from "./src/pipelines/index-node.ts";
import { pictureGrid } from "./src/pictures/index.ts";
import { writePicture } from "./src/pictures/index-node.ts";
const [model, out, steps, guidance, ...prompts] = process.argv.slice(2);
const pipeline = await openPipeline(model!);
const pictures: any[] = [];
for (const [i, prompt] of prompts.entries()) {
  const r = pipeline.generate({ prompt, seed: i, steps: Number(steps), guidance: Number(guidance) });
  pictures.push(...(await finished(r)));
}
await pipeline.dispose();
await writePicture(out!, pictureGrid(pictures, 12));
