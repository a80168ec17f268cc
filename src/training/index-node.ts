/** Training from a config, as `patchwise train` does it. */
export type { LoraTrainingConfig, TrainingConfig } from "./config/config.ts";
export { readTrainingConfig } from "./config/config-file.ts";
export {
  type DrawSamples,
  train,
  type TrainingEvent,
  type TrainingResult,
  type TrainOptions,
} from "./run/train-node.ts";
