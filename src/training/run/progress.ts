/** How far a task is, in a line. */

export interface Progress {
  /** Steps done. */
  readonly step: number;
  /** Of the whole task, where it is known. */
  readonly steps?: number | undefined;
  readonly loss?: number | undefined;
  readonly imagesPerSecond?: number | undefined;
  /** Infinite where it cannot be told yet. */
  readonly secondsLeft: number;
}

/** @example progressLine({ step: 30, steps: 120, loss: 0.25, imagesPerSecond: 412, secondsLeft: 90 }) // "step 30 of 120 (25 %)  loss 0.2500  412 images/s  1 min 30 s left" */
export function progressLine(progress: Progress): string {
  const { step, steps, loss, imagesPerSecond, secondsLeft } = progress;
  const share = steps ? ` of ${steps} (${Math.floor((100 * step) / steps)} %)` : "";
  return [
    `step ${step}${share}`,
    loss === undefined ? undefined : `loss ${loss.toPrecision(4)}`,
    imagesPerSecond === undefined ? undefined : `${rate(imagesPerSecond)} images/s`,
    Number.isFinite(secondsLeft) ? `${duration(secondsLeft)} left` : undefined,
  ]
    .filter((part) => part !== undefined)
    .join("  ");
}

/** @example encodingLine({ done: 30, pictures: 120, secondsLeft: 90 }) // "encoded 30 of 120 pictures (25 %)  1 min 30 s left" */
export function encodingLine(progress: {
  readonly done: number;
  readonly pictures: number;
  readonly secondsLeft: number;
}): string {
  const { done, pictures, secondsLeft } = progress;
  return `encoded ${done} of ${pictures} pictures (${Math.floor((100 * done) / pictures)} %)  ${duration(secondsLeft)} left`;
}

function rate(perSecond: number): string {
  return perSecond < 9.95 ? perSecond.toPrecision(2) : perSecond.toFixed(0);
}

/** The two largest units that count. */
function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(whole / unit)) as [
    number,
    number,
    number,
  ];
  if (minutes === 0) return `${whole} s`;
  if (hours === 0) return `${minutes} min ${whole % 60} s`;
  if (days === 0) return `${hours} h ${minutes % 60} min`;
  return `${days} d ${hours % 24} h`;
}
