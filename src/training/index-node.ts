/** Training from a YAML config, as `patchwise train` does, and trained models on disk. */
export {
  type LoraTrainingConfig,
  type TrainingConfig,
  trainingConfigSchema,
} from "./config/config.ts";
export { readTrainingConfig } from "./config/config-file.ts";
export type { DrawnSamples, DrawSamples } from "./tasks/samples.ts";
export type { TrainingEvent, TrainingResult } from "./loop.ts";
export { saveModel } from "./run/run-folder-node.ts";
export { train, type TrainOptions, type TrainContext } from "./run/train-node.ts";
export { openWords } from "./run/words-node.ts";
