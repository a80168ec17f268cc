/**
 * Errors that a user can cause. Each message is one sentence that names the value, what was expected and what to do.
 * Anything else that is thrown is a bug in this library.
 */
export class PatchwiseError extends Error {
  override name = "PatchwiseError";
}

/** A command, an option or an argument is wrong. The command line exits with code 2. */
export class UsageError extends PatchwiseError {
  override name = "UsageError";
}

/** Shapes or dtypes do not match. The message quotes both, and the path of the nearest parameter. */
export class ShapeError extends PatchwiseError {
  override name = "ShapeError";
}

/** The bytes of a file, such as a checkpoint or a data set, do not follow its format. */
export class FormatError extends PatchwiseError {
  override name = "FormatError";
}

/** A device or execution provider is not available on this machine, or has failed. */
export class DeviceError extends PatchwiseError {
  override name = "DeviceError";
}
