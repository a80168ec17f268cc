/**
 * Weights in files: what runs in the browser and in Node alike. `patchwise/weights/node` adds files on disk.
 */
export { openSafetensors, readFloat32, readTensor, type Weights } from "./safetensors.ts";
export type { TensorEntry } from "./safetensors-header.ts";
export { openSafetensorsUrl } from "./safetensors-url.ts";
export { type Metadata, type NamedArrays, safetensorsBytes } from "./safetensors-write.ts";
export { openSharded } from "./sharded.ts";
export { blobSource, type ByteSource, bytesSource } from "./source.ts";
export { type UrlOptions, urlSource } from "./source-url.ts";
export { storedWeights } from "./stored.ts";
