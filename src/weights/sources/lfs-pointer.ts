/** Git LFS leaves small text files in the place of large ones until they are asked for. */
import { FormatError } from "../../engine/errors.ts";

const BEGINNING = new TextEncoder().encode("version https://git-lfs.github.com/spec/");

/**
 * @param bytes a file, or as much of its beginning
 * @throws FormatError when it is not the file itself but a pointer to it
 */
export function refuseLfsPointer(bytes: Uint8Array, name: string): void {
  if (!BEGINNING.every((byte, i) => bytes[i] === byte)) return;
  throw new FormatError(
    `${name} is only Git LFS's pointer to the file; run "git lfs pull" where it was cloned.`,
  );
}
