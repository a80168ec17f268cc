/** Drawing: one at a time, its pictures as they form, and its steps for looking inside. */
import type { DrawnPicture, GenerateStep } from "../../src/pipelines/index.ts";
import type { GenerateSettings } from "../../src/pipelines/settings.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import { model, openPipeline } from "./engine.ts";
import { remember } from "./history.ts";
import { requestOf, type Settings } from "./settings.ts";
import { store } from "./store.ts";

export interface Drawing {
  readonly id: number;
  /** As they were chosen. */
  readonly asked: Settings;
  /** As the model resolved them. */
  readonly resolved: GenerateSettings;
  readonly steps: readonly GenerateStep[];
  /** The estimate of each step, for each picture. */
  readonly previews: readonly (readonly Picture[])[];
  readonly pictures: readonly DrawnPicture[] | undefined;
  readonly seconds: number;
  readonly device: string;
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

/** Draws with settings; a drawing that runs is cancelled. */
export async function draw(asked: Settings): Promise<void> {
  cancel();
  const mine = new AbortController();
  stopping = mine;
  const show = (fields: Partial<DrawingState>) => {
    if (stopping === mine) drawingState.patch(fields);
  };
  show({ running: true, problem: undefined, cancelled: false });
  try {
    const pipeline = await openPipeline();
    mine.signal.throwIfAborted();
    const request = requestOf(asked);
    const resolved = await pipeline.settings(request);
    const began = performance.now();
    let drawing: Drawing = {
      id: ++count,
      asked,
      resolved,
      steps: [],
      previews: [],
      pictures: undefined,
      seconds: 0,
      device: model.get().device,
    };
    const generation = pipeline.generate({ ...request, signal: mine.signal });
    for (;;) {
      const next = await generation.next();
      const seconds = (performance.now() - began) / 1000;
      if (next.done) {
        drawing = { ...drawing, pictures: next.value, seconds };
        show({ drawing, running: false });
        await remember(drawing);
        return;
      }
      const preview = await next.value.preview();
      const { steps, previews } = drawing;
      drawing = {
        ...drawing,
        steps: [...steps, next.value],
        previews: [...previews, preview],
        seconds,
      };
      show({ drawing });
    }
  } catch (error) {
    const cancelled = mine.signal.aborted;
    show({ running: false, cancelled, problem: cancelled ? undefined : (error as Error).message });
  }
}
