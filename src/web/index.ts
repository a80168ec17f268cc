/** Models in a page: drawing and training in a Web Worker, with the interface that they have without one, and an HTML element. */
export {
  openInWorker,
  type OpenWorkerOptions,
  trainInWorker,
  type TrainInWorkerOptions,
  type WorkerOptions,
} from "./client.ts";
export { defineImageElement } from "./element.ts";
export type { WorkerPipeline } from "./worker-pipeline.ts";
export type { SentTraining, WorkerBackend } from "./services.ts";
