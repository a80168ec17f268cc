/**
 * Writes the bundled model of clips from what `train-clips.ts` and `train-prompts.ts` trained:
 *
 *   node scripts/run.mjs scripts/motion/assemble.ts --clips runs/motion --prompts runs/motion-prompts --out models/emoji-motion
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { readCard } from "../../src/models/card.ts";
import { promptScope } from "../../src/models/network.ts";
import type { PromptEncoderConfig } from "../../src/models/text-encoders/prompt-encoder.ts";
import { saveModel } from "../../src/training/index-node.ts";
import { SIDE } from "../emoji/pictures.ts";
import { readArrays } from "../emoji/stored.ts";
import { FRAMES, PERIOD } from "./clips.ts";
import { networkOf, recipe } from "./network.ts";

const { values: given } = parseArgs({
  options: {
    clips: { type: "string" },
    prompts: { type: "string" },
    out: { type: "string" },
    steps: { type: "string", default: "4" },
  },
});
const [clips, prompts] = [given.clips!, given.prompts!];
const trained = JSON.parse(await readFile(join(clips, "progress.json"), "utf8")) as {
  step: number;
  clips: number;
  blocks: readonly number[];
};
const { config } = JSON.parse(await readFile(join(prompts, "subjects.json"), "utf8")) as {
  config: PromptEncoderConfig;
};
const encoder = await readArrays(join(prompts, "prompt-encoder.safetensors"));
const card = readCard("model.json", {
  format: "patchwise",
  version: 1,
  name: "emoji-motion",
  network: { ...networkOf(trained.blocks.length), prompt: config },
  diffusion: recipe,
  picture: { height: SIDE, width: SIDE, channels: 3 },
  sampling: {
    sampler: "euler",
    steps: Number(given.steps),
    guidance: 1,
    fps: 12,
    // A whole period of a motion.
    frames: PERIOD,
    sharedNoise: 1,
  },
  trained: { steps: trained.step, images: trained.clips * FRAMES },
});
await saveModel(
  given.out!,
  {
    card,
    weights: {
      ...(await readArrays(join(clips, "averages.safetensors"))),
      ...Object.fromEntries(
        Object.entries(encoder).map(([name, array]) => [`${promptScope}.${name}`, array]),
      ),
    },
    tokenizerFile: new Uint8Array(await readFile(join(prompts, "tokenizer.json"))),
  },
  "float16",
);
