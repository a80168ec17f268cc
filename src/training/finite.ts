/** The numbers of a training, which end it when they are no longer finite. */
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { PatchwiseError } from "../engine/errors.ts";
import type { Recorder } from "./loop.ts";

/**
 * The error of a training whose numbers are no longer finite.
 *
 * @param saved the step of the last checkpoint, 0 for none
 */
export function notFinite(
  what: string,
  step: number,
  saved: number,
  { folder }: Recorder,
): PatchwiseError {
  const kept =
    saved > 0
      ? `the checkpoint of step ${saved}${folder ? ` in ${folder.checkpoints}` : ""} is kept`
      : "nothing was saved yet";
  const restart = saved > 0 && folder ? `, and start from ${folder.path} with training.from` : "";
  return new PatchwiseError(
    `Training stopped at step ${step} because the ${what} is no longer a number; ${kept}. Lower training.optimizer.rate or training.clip${restart}.`,
  );
}

export function allFinite({ dtype, data }: NdArray): boolean {
  return dtype !== "float32" || (data as Float32Array).every(Number.isFinite);
}
