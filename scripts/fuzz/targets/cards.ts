/** Folders of trained models: the card, model.json, beside sound weights. */
import { openTrainedFolder } from "../../../src/pipelines/open/trained-model.ts";
import { safetensorsBytes } from "../../../src/weights/safetensors/write.ts";
import { memoryFolder } from "../../../src/weights/sources/folder-memory.ts";
import {
  randomWeights,
  tinyCard,
  tinyNetwork,
  tinyTextNetwork,
  tinyTokenizerJson,
} from "../../../test/support/tiny-model.ts";
import { bytes, jsonValues, textWords } from "../mutations.ts";
import type { OpenTarget } from "../target.ts";

const json = (content: unknown) => new TextEncoder().encode(JSON.stringify(content));

export const open: OpenTarget = () => {
  const weights = [tinyNetwork, tinyTextNetwork].map((network) =>
    safetensorsBytes(Object.entries(randomWeights(network))),
  );
  return {
    sound: [json(tinyCard()), json(tinyCard(tinyTextNetwork))],
    mutations: [bytes, textWords, jsonValues, jsonValues, jsonValues],
    async read(input) {
      const isText = new TextDecoder().decode(input).includes('"prompt"');
      const folder = memoryFolder({
        "model.json": input,
        "tokenizer.json": json(tinyTokenizerJson),
        "model.safetensors": weights[isText ? 1 : 0]!,
      });
      const model = await openTrainedFolder(folder, {});
      await model.close();
    },
  };
};
