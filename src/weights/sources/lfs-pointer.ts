/** Detects the small text files that Git LFS leaves in place of large files until they are pulled. */
import { FormatError } from "../../engine/errors.ts";

const BEGINNING = new TextEncoder().encode("version https://git-lfs.github.com/spec/");

/**
 * @param bytes the file, or its beginning
 * @throws FormatError if it is a pointer instead of the file itself
 */
export function refuseLfsPointer(bytes: Uint8Array, name: string): void {
  if (!BEGINNING.every((byte, i) => bytes[i] === byte)) return;
  throw new FormatError(
    `${name} is a Git LFS pointer instead of the file; run "git lfs pull" where it was cloned.`,
  );
}
