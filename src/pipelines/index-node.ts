/** Pipelines on models on disk. */
export { openPipeline, type OpenPipelineOptions, shippedModels } from "./open-node.ts";
