export {
  DeviceError,
  FormatError,
  PatchwiseError,
  ShapeError,
  UsageError,
} from "./engine/errors.ts";
