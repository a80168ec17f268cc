/**
 * Reads and writes safetensors files, in Node and in the browser; `patchwise/weights/node` adds files on
 * disk.
 */
export {
  openSafetensors,
  readFloat32,
  readTensor,
  type Weights,
} from "./safetensors/safetensors.ts";
export type { TensorEntry } from "./safetensors/header.ts";
export { openSafetensorsUrl } from "./safetensors/url.ts";
export { type Metadata, type NamedArrays, safetensorsBytes } from "./safetensors/write.ts";
export { openSharded } from "./safetensors/sharded.ts";
export { blobSource, type ByteSource, bytesSource } from "./sources/source.ts";
export { type UrlOptions, urlSource } from "./sources/url.ts";
export { storedWeights } from "./stored.ts";
export type { KeyMap } from "./check-keys.ts";
export type { FieldReader } from "./config-fields.ts";
export type { LayerName, RowRange } from "./lora.ts";
export type { ModelFolder } from "./sources/folder.ts";
