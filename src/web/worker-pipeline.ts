/** A pipeline whose work is done in a worker. */
import type { DrawnPicture, GenerateRequest, GenerateStep, Pipeline } from "../pipelines/index.ts";
import type { Caller } from "./calls.ts";
import type { WebServices } from "./services.ts";

/** A pipeline in a worker. */
export type WorkerPipeline = Omit<Pipeline, "settings"> & {
  /** As `settings` of a pipeline, which needs an answer of the worker. */
  settings(request: GenerateRequest): Promise<ReturnType<Pipeline["settings"]>>;
};

/** A pipeline that `open` of the services has opened; disposing it closes the worker. */
export function workerPipeline(
  caller: Caller<WebServices>,
  pipeline: number,
  name: string,
): WorkerPipeline {
  let disposed: Promise<void> | undefined;
  const dispose = () =>
    (disposed ??= caller.call("dispose", { pipeline }).finally(() => caller.close()));
  return {
    name,
    settings: ({ signal: _s, onProgress: _p, ...request }) =>
      caller.call("settings", { pipeline, request }),
    generate: (request) => generate(caller, pipeline, request),
    dispose,
    [Symbol.asyncDispose]: dispose,
  };
}

async function* generate(
  caller: Caller<WebServices>,
  pipeline: number,
  { signal, onProgress, ...request }: GenerateRequest,
): AsyncGenerator<GenerateStep, readonly DrawnPicture[]> {
  const { drawing } = await caller.call("begin", { pipeline, request }, { signal });
  try {
    for (;;) {
      const next = await caller.call("next", { drawing }, { signal });
      if (next.done) return next.value;
      const { step, steps } = next.value;
      onProgress?.({ step, steps });
      yield {
        step,
        steps,
        preview: () => caller.call("preview", { drawing, step }),
        inspect: (options = {}) => caller.call("inspect", { drawing, step, options }),
      };
    }
  } finally {
    await caller.call("end", { drawing });
  }
}
