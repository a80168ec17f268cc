/**
 * Every error a person can cause is one sentence that names the value, what was expected and what to do.
 * Anything else that is thrown is a bug of ours.
 */
export class PatchwiseError extends Error {
  override name = "PatchwiseError";
}

/** Wrong use of a command or an option; the command line answers it with exit code 2. */
export class UsageError extends PatchwiseError {
  override name = "UsageError";
}

/** Shapes or dtypes that do not fit each other. The message quotes both, and the parameter path where they met. */
export class ShapeError extends PatchwiseError {
  override name = "ShapeError";
}

/** Bytes from outside (a checkpoint, a data set) that are not what their format promises. */
export class FormatError extends PatchwiseError {
  override name = "FormatError";
}

/** A device or execution provider that this machine does not offer, or that gave up. */
export class DeviceError extends PatchwiseError {
  override name = "DeviceError";
}
