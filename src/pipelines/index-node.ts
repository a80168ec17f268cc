/** Pipelines on models on disk. */
export { openPipeline, type OpenPipelineOptions } from "./open/open-node.ts";
export { shippedModels } from "../models/card-node.ts";
export { writePicture } from "../pictures/file-node.ts";
