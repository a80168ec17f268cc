/** Drawing: one at a time, its pictures as they form, and its steps for looking inside. */
import { type DrawnPicture, finished, type GenerateStep } from "../../src/pipelines/index.ts";
import type { GenerateSettings } from "../../src/pipelines/settings.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import { type Device, model, openPipeline, servedModel } from "./engine.ts";
import { remember } from "./history.ts";
import { drawOnServer } from "./server/draw.ts";
import { requestOf, type Settings } from "./settings.ts";
import { store } from "./store.ts";

export interface Drawing {
  readonly id: number;
  /** As they were chosen. */
  readonly asked: Settings;
  /** As the model resolved them. */
  readonly resolved: GenerateSettings;
  /** Those of the page, which can be looked into; none of the server's. */
  readonly steps: readonly GenerateStep[];
  /** The estimate of each step, for each picture. */
  readonly previews: readonly (readonly Picture[])[];
  readonly pictures: readonly DrawnPicture[] | undefined;
  /** Files that the server wrote. */
  readonly files?: readonly Blob[];
  readonly seconds: number;
  readonly device: Device | "server";
}

export interface DrawingState {
  readonly running: boolean;
  readonly drawing: Drawing | undefined;
  readonly problem: string | undefined;
  readonly cancelled: boolean;
}

export const drawingState = store<DrawingState>({
  running: false,
  drawing: undefined,
  problem: undefined,
  cancelled: false,
});

let stopping: AbortController | undefined;
let count = 0;

export function cancel(): void {
  stopping?.abort();
}

/**
 * Draws with settings; a drawing that runs is cancelled.
 *
 * @param remote whether the server draws; as it is chosen unless given
 */
export async function draw(asked: Settings, remote = model.get().remote): Promise<void> {
  cancel();
  const mine = new AbortController();
  stopping = mine;
  const show = (fields: Partial<DrawingState>) => {
    if (stopping === mine) drawingState.patch(fields);
  };
  show({ running: true, problem: undefined, cancelled: false });
  try {
    const drawing = await (remote ? drawThere : drawHere)(asked, mine.signal, (forming) =>
      show({ drawing: forming }),
    );
    show({ drawing, running: false });
    await remember(drawing);
  } catch (error) {
    const cancelled = mine.signal.aborted;
    show({ running: false, cancelled, problem: cancelled ? undefined : (error as Error).message });
  }
}

type Draw = (
  asked: Settings,
  signal: AbortSignal,
  show: (drawing: Drawing) => void,
) => Promise<Drawing>;

/** Draws in the page. */
const drawHere: Draw = async (asked, signal, show) => {
  const pipeline = await openPipeline();
  signal.throwIfAborted();
  const request = requestOf(asked);
  const resolved = await pipeline.settings(request);
  const began = performance.now();
  let drawing = begun(asked, resolved, model.get().device);
  const generation = pipeline.generate({ ...request, signal });
  for (;;) {
    const next = await generation.next();
    const seconds = (performance.now() - began) / 1000;
    if (next.done) return { ...drawing, pictures: next.value, seconds };
    const preview = await next.value.preview();
    const { steps, previews } = drawing;
    drawing = {
      ...drawing,
      steps: [...steps, next.value],
      previews: [...previews, preview],
      seconds,
    };
    show(drawing);
  }
};

/** Draws on the server. */
const drawThere: Draw = async (asked, signal, show) => {
  const info = await servedModel(asked.model);
  const began = performance.now();
  let drawing: Drawing | undefined;
  const { job, pictures, files } = await drawOnServer(asked, info, {
    signal,
    onStart: ({ settings }) => show((drawing = begun(asked, settings, "server"))),
    onPreview(preview, step) {
      const seconds = (performance.now() - began) / 1000;
      const previews = [...drawing!.previews];
      // On a slow connection the server leaves some out.
      while (previews.length < step) previews.push(preview);
      drawing = { ...drawing!, previews, seconds };
      show(drawing);
    },
  });
  // The last step has no preview: it is the picture.
  const previews = [...drawing!.previews, pictures];
  const seconds = (performance.now() - began) / 1000;
  return { ...drawing!, resolved: job.settings, previews, pictures, files, seconds };
};

function begun(asked: Settings, resolved: GenerateSettings, device: Drawing["device"]): Drawing {
  return {
    id: ++count,
    asked,
    resolved,
    steps: [],
    previews: [],
    pictures: undefined,
    seconds: 0,
    device,
  };
}

/** Draws one picture with settings, in the page or on the server, as it is chosen. */
export async function drawOne(asked: Settings, signal: AbortSignal): Promise<DrawnPicture> {
  const one = { ...asked, count: 1 };
  if (model.get().remote) {
    const { pictures } = await drawOnServer(one, await servedModel(one.model), { signal });
    return pictures[0]!;
  }
  const pipeline = await openPipeline();
  const [picture] = await finished(pipeline.generate({ ...requestOf(one), signal }));
  return picture!;
}
