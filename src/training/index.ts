/**
 * Training in Node and in a page: `trainModel` trains on pictures in memory; the training step, optimizers and losses beneath
 * it train anything else. `patchwise/training/node` trains from YAML configs and saves models to disk.
 */
export type { Batch, Loader, Skipped } from "../data/loading/batch-reader.ts";
export type { DataSet, Example, Described, Survey } from "../data/dataset.ts";
export { type LabelledPicture, pictureSet, type PictureSetOptions } from "../data/memory.ts";
export { type Recipe, recipeLoss } from "../diffusion/recipe.ts";
export type {
  StepReport,
  TrainingCheckpoint,
  TrainingEvent,
  TrainingResult,
  Measures,
  Task,
} from "./loop.ts";
export {
  adamW,
  type AdamWOptions,
  type Decay,
  mapTree,
  muon,
  type MuonOptions,
  type Optimizer,
  rateAt,
  type RateSchedule,
  type Tree,
} from "./optimizers.ts";
export {
  type Arrays,
  emaPrefix,
  optimizerPrefix,
  type StepPart,
  type TrainingStep,
  trainingStep,
  type TrainingStepOptions,
  type StepHalves,
} from "./step.ts";
export {
  createTrainer,
  type ReduceGradients,
  type StepResult,
  type Trainer,
  type TrainerOptions,
  type TrainerState,
} from "./trainer.ts";
export { type FixedType } from "./fixed-weights.ts";
export { type Objective, objective, type ObjectiveOptions } from "./tasks/denoiser.ts";
export { type ExampleOptions, examplesOf } from "./tasks/examples.ts";
export { type Routing } from "./tasks/routing.ts";
export { readWords, type WordTable } from "./tasks/words.ts";
export {
  modelBytes,
  type NetworkSettings,
  type TrainedModel,
  trainModel,
  type TrainModelOptions,
  type TrainModelResult,
  type TrainingPictures,
} from "./train-model.ts";
export type { LatentDraw, LatentEvent, LatentForm } from "../data/latents/latents.ts";
export type { Warning } from "./beside.ts";
export type { AutoencoderTrainingConfig, TrainingConfigInput } from "./config/config.ts";
export type { ModelSettings } from "./config/model-settings.ts";
export type { Estimate, FeatureLosses } from "./tasks/feature-losses.ts";
export type { Collective } from "./collective/collective.ts";
