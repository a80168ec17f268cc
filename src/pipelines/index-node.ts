/** Pipelines on models on disk. */
export { type Exported, exportGraph, type ExportOptions, type Port } from "./export-node.ts";
export { openModel, openPipeline, type OpenPipelineOptions } from "./open/open-node.ts";
export { shippedModels } from "../models/card-node.ts";
export { writePicture } from "../pictures/file-node.ts";
export type { ChosenLora } from "./open/lora-node.ts";
