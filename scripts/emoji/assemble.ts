/**
 * Writes the bundled model from what `train-decoder.ts` and `train-prompts.ts` trained:
 *
 *   node scripts/run.mjs scripts/emoji/assemble.ts --decoder runs/decoder --prompts runs/prompts --out models/emoji
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { promptScope } from "../../src/models/network.ts";
import type { PromptEncoderConfig } from "../../src/models/text-encoders/prompt-encoder.ts";
import { readCard } from "../../src/models/card.ts";
import { saveModel } from "../../src/training/index-node.ts";
import { network, recipe } from "./network.ts";
import { SIDE } from "./pictures.ts";
import { readArrays } from "./stored.ts";

const { values: given } = parseArgs({
  options: {
    decoder: { type: "string" },
    prompts: { type: "string" },
    out: { type: "string" },
    steps: { type: "string", default: "20" },
    guidance: { type: "string", default: "1" },
  },
});
const [decoder, prompts] = [given.decoder!, given.prompts!];
const { step, images } = JSON.parse(await readFile(join(decoder, "progress.json"), "utf8")) as {
  step: number;
  images: number;
};
const { config } = JSON.parse(await readFile(join(prompts, "subjects.json"), "utf8")) as {
  config: PromptEncoderConfig;
};
const encoder = await readArrays(join(prompts, "prompt-encoder.safetensors"));
const card = readCard("model.json", {
  format: "patchwise",
  version: 1,
  name: "emoji",
  network: { ...network, prompt: config },
  diffusion: recipe,
  picture: { height: SIDE, width: SIDE, channels: 3 },
  sampling: { sampler: "euler", steps: Number(given.steps), guidance: Number(given.guidance) },
  trained: { steps: step, images },
});
await saveModel(
  given.out!,
  {
    card,
    weights: {
      ...(await readArrays(join(decoder, "averages.safetensors"))),
      ...Object.fromEntries(
        Object.entries(encoder).map(([name, array]) => [`${promptScope}.${name}`, array]),
      ),
    },
    tokenizerFile: new Uint8Array(await readFile(join(prompts, "tokenizer.json"))),
  },
  "float16",
);
