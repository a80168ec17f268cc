/** Data sets on disk, and their batches. */
export { type DataConfig, type DataPart, dataSchema } from "./config.ts";
export type { DataSet, Example } from "./dataset.ts";
export type { Batch, Loader, Rows } from "./loading/batch-reader.ts";
export { type LoaderOptions, openLoader } from "./loading/loader-node.ts";
export { openData } from "./open-node.ts";
export type { LatentCache } from "./latents/latents.ts";
