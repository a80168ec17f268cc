/** Explains the error codes of the operating system and how to resolve them. */
const meanings = new Map([
  ["ENOENT", "there is no such file or folder; check the path"],
  ["EACCES", "permission is denied; check who may use it"],
  ["EPERM", "permission is denied; check who may use it"],
  ["EISDIR", "it is a folder; name a file"],
  ["ENOTDIR", "a part of the path is a file, not a folder; check the path"],
  ["EROFS", "the file system is read-only; choose another folder"],
  ["ENOSPC", "the disk is full; free some space and try again"],
  ["EDQUOT", "the disk quota is used up; free some space and try again"],
  ["EFBIG", "the file would be larger than the file system or a limit allows"],
  ["EMFILE", "too many files are open; close some and try again"],
  ["ENAMETOOLONG", "the name is too long; choose a shorter one"],
]);

/** Returns a clause such as "the disk is full; free some space and try again (ENOSPC)". */
export function describeSystemError(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  const meaning = code === undefined ? undefined : meanings.get(code);
  return meaning ? `${meaning} (${code})` : message;
}
