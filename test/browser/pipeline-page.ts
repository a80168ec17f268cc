/** Draws inside a page for pipeline.test.ts, with a folder that `patchwise train` wrote. */
import type { WebDevice } from "../../src/engine/runtime/ort-session-web.ts";
import { webBackend } from "../../src/engine/runtime/ort-web.ts";
import {
  finished,
  type GenerateRequest,
  openPipelineUrl,
  type OpenUrlOptions,
} from "../../src/pipelines/index.ts";

/** Values [H · W · C] of each picture. */
export async function draw(
  folder: string,
  device: WebDevice,
  worker: boolean,
  request: GenerateRequest,
  options?: Pick<OpenUrlOptions, "promptTokens">,
): Promise<number[][]> {
  const pipeline = await openPipelineUrl(folder, {
    ...options,
    backend: webBackend({
      device,
      wasmPaths: "/ort/",
      ...(worker && { worker: () => new Worker(`/worker-${device}.js`, { type: "module" }) }),
    }),
  });
  try {
    const pictures = await finished(pipeline.generate(request));
    return pictures.map(({ pixels }) => [...pixels]);
  } finally {
    await pipeline.dispose();
  }
}
