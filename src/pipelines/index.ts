/**
 * From a prompt or class to pictures, in Node and in the browser. `patchwise/pipelines/node` opens models on disk.
 */
export { type Card, readCard } from "../models/card.ts";
export {
  type ImageModel,
  networkGraph,
  type ClipDecoder,
  type DrawingOptions,
  type LatentDecoder,
  type MergedLora,
  type PromptEncoder,
  type RunStage,
  type Stage,
  type TruncatedText,
} from "./image-model.ts";
export { openPipelineBytes, openPipelineUrl, type OpenUrlOptions } from "./open/open-web.ts";
export type { UrlParts } from "./open/split-url.ts";
export { type CachedFile, type ModelCache, modelCache } from "../weights/sources/url-cache.ts";
export type { DownloadProgress } from "../weights/sources/url.ts";
export type { InspectedNetwork, InspectOptions, StepInspection } from "./inspect.ts";
export { drawSamples } from "./training-samples.ts";
export { createPipeline, type ModelParts } from "./open/trained-model.ts";
export { type DrawnPicture, finished, type GenerateStep, type Pipeline } from "./pipeline.ts";
export {
  type GenerateRequest,
  generateRequestSchema,
  type GenerateSettings,
  type SettingName,
} from "./settings.ts";
export type { SkipLayers } from "./skip-layers.ts";
export type { OpenModelOptions } from "./open/options.ts";
export type {
  GivenLatents,
  GuidedNetworks,
  ProcessStep,
  SamplingProcess,
  SeparateDenoisers,
  SamplingRun,
} from "./process.ts";
export type { SettingDefaults, SettingFlag, SettingRow } from "./setting.ts";
export type { DrawingProgress } from "./compute.ts";
