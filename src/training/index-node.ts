/** Training from a config, as `patchwise train` does it. */
export {
  type LoraTrainingConfig,
  type TrainingConfig,
  trainingConfigSchema,
} from "./config/config.ts";
export { readTrainingConfig } from "./config/config-file.ts";
export type { TrainingEvent, TrainingResult } from "./loop.ts";
export { type DrawSamples, openWords, train, type TrainOptions } from "./run/train-node.ts";
