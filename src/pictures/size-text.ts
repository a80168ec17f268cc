/** Picture sizes as text. */
import { quote, UsageError } from "../engine/errors.ts";

/**
 * Reads width and height in pixels, such as "64x48", or one number for both.
 *
 * @param name how errors name the option
 * @throws UsageError if the text is no such size
 */
export function readSize(text: string, name: string): { width: number; height: number } {
  const [, width, height = width] = /^(\d+)(?:\s*[x×]\s*(\d+))?$/i.exec(text.trim()) ?? [];
  if (width !== undefined) return { width: Number(width), height: Number(height) };
  throw new UsageError(
    `${name} is ${quote(text)}; give width and height in pixels, such as 64x48, or one number for both.`,
  );
}
