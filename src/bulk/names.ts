/** Names of pictures, which become those of files on any system and keys of samples in archives. */
import { quote, UsageError } from "../engine/errors.ts";

/** More bytes than this leave no room for an extension in the 255 of most file systems. */
const MOST_BYTES = 200;

/** Characters that separate folders or are not allowed in file names on some system, and invisible ones. */
const forbidden = /[/\\:*?"<>|\p{C}]/u;

/** Names that stand for devices of Windows. */
const devices = /^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[\d¹²³])$/i;

/** A name in the form in which file systems compare names, some of which tell neither cases nor ß and ss apart. */
export function comparedName(name: string): string {
  return name.normalize("NFC").toLowerCase().toUpperCase().normalize("NFC");
}

/**
 * Checks the name of a picture.
 *
 * @throws UsageError if it is not a text that can name a file, without an extension, in a single folder
 */
export function checkPictureName(name: unknown): asserts name is string {
  const problem = problemOf(name);
  if (problem === undefined) return;
  throw new UsageError(
    `The name ${typeof name === "string" ? quote(name) : JSON.stringify(name)} ${problem}; give one such as "red-heart-7", without a folder or an extension.`,
  );
}

function problemOf(name: unknown): string | undefined {
  if (typeof name !== "string") return "is not a text";
  if (name.trim() !== name || name === "") return "is empty, or begins or ends with a space";
  const wrong = forbidden.exec(name);
  if (wrong) return `has the character ${quote(wrong[0])}, which no name of a file may have`;
  // WebDataset takes what follows the first dot for the extension, and files that begin with one are hidden.
  if (name.includes(".")) return "has a dot, behind which archives expect an extension";
  if (devices.test(name)) return "stands for a device on Windows";
  const bytes = Buffer.byteLength(name);
  if (bytes > MOST_BYTES) return `takes ${bytes} bytes, more than the ${MOST_BYTES} of a name`;
  return undefined;
}
