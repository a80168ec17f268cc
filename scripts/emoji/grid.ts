/**
 * Draws docs/emoji.png: the 64 prompts below with the seeds 0 to 63, whatever comes.
 *
 *   node scripts/run.mjs scripts/emoji/grid.ts [MODEL] [PICTURE]
 */
import { finished } from "../../src/pipelines/index.ts";
import { openPipeline } from "../../src/pipelines/index-node.ts";
import type { Picture } from "../../src/pictures/index.ts";
import { pictureGrid } from "../../src/pictures/index.ts";
import { writePicture } from "../../src/pictures/index-node.ts";

const prompts = [
  [
    "smiling face",
    "crying face",
    "red heart",
    "blue heart",
    "cat face",
    "dog",
    "rabbit",
    "penguin",
  ],
  [
    "red apple",
    "banana",
    "pizza",
    "birthday cake",
    "hot beverage",
    "hamburger",
    "ice cream",
    "sushi",
  ],
  ["automobile", "bicycle", "airplane", "rocket", "train", "sailboat", "house", "castle"],
  [
    "sun",
    "crescent moon",
    "cloud with rain",
    "snowman",
    "rainbow",
    "mountain",
    "evergreen tree",
    "rose",
  ],
  ["guitar", "soccer ball", "trophy", "game die", "camera", "light bulb", "key", "umbrella"],
  ["狗", "苹果", "汽车", "房子", "月亮", "蓝色的心", "树", "披萨"],
  [
    "ghost, flat style",
    "robot, twemoji style",
    "unicorn in emojione style",
    "扁平风格的猫",
    "owl in flat style",
    "octopus, twemoji style",
    "a drawing of a dragon",
    "turtle emoji",
  ],
  [
    "purple cat",
    "green dog",
    "blue house",
    "yellow car",
    "绿色的马",
    "cat with a hat",
    "dog and a balloon",
    "ghost with a crown",
  ],
];

const [model = "emoji", file = "docs/emoji.png"] = process.argv.slice(2);
const pipeline = await openPipeline(model);
const pictures: Picture[] = [];
for (const [seed, prompt] of prompts.flat().entries()) {
  pictures.push(...(await finished(pipeline.generate({ prompt, seed }))));
}
await pipeline.dispose();
await writePicture(file, pictureGrid(pictures, 8));
for (const row of prompts) console.log(row.join(" · "));
