/** Training configs in YAML. */
import { readdirSync, readFileSync } from "node:fs";
import { readTrainingConfig } from "../../../src/training/config/config-file.ts";
import { bytes, textWords } from "../mutations.ts";
import type { OpenTarget } from "../target.ts";

const folder = new URL("../../../examples/", import.meta.url);

export const open: OpenTarget = () => ({
  sound: readdirSync(folder)
    .filter((name) => name.endsWith(".yaml"))
    .map((name) => new Uint8Array(readFileSync(new URL(name, folder)))),
  mutations: [bytes, textWords, textWords],
  read: (input) => readTrainingConfig("config.yaml", new TextDecoder().decode(input)),
});
