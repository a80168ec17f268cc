/** Values of options, from text. */
import { DeviceError, UsageError } from "../engine/errors.ts";
import type { NodeDevice } from "../engine/runtime/ort-session-node.ts";
import { quote } from "../weights/json.ts";

/** A parser of numbers for an option, as commander takes it. */
export function numberOption(name: string): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? NaN : Number(text);
    if (Number.isFinite(value)) return value;
    throw new UsageError(`${name} is ${quote(text)}, which is no number; give one.`);
  };
}

/**
 * Width and height, "64x48", or one number for both.
 *
 * @returns [height, width]
 */
export function sizeOption(text: string): readonly [height: number, width: number] {
  const [, width, height = width] = /^(\d+)(?:\s*[x×]\s*(\d+))?$/i.exec(text.trim()) ?? [];
  if (width !== undefined) return [Number(height), Number(width)];
  throw new UsageError(
    `--size is ${quote(text)}; give width and height in pixels, such as 64x48, or one number for both.`,
  );
}

export const deviceNames = "cpu, cuda, coreml, dml or webgpu";

/**
 * Works on the device that a person chose.
 *
 * @throws UsageError where the machine cannot offer it: choosing another is the way out
 */
export async function onDevice<T>(
  device: string,
  work: (device: NodeDevice) => Promise<T>,
): Promise<T> {
  try {
    return await work(device as NodeDevice);
  } catch (error) {
    if (!(error instanceof DeviceError) || device === "cpu") throw error;
    throw new UsageError(error.message, { cause: error });
  }
}
