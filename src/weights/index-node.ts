/**
 * Weights in files on disk.
 */
export { type FileContent, writeFileAtomic } from "./atomic-node.ts";
export { openSafetensorsFile, writeSafetensors } from "./safetensors-node.ts";
export { fileSource } from "./source-node.ts";
