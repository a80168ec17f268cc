/** Pipelines on models on disk. */
export { openPipeline, type OpenPipelineOptions } from "./open-node.ts";
export { shippedModels } from "../models/card-node.ts";
export { writePicture } from "../data/picture-file-node.ts";
