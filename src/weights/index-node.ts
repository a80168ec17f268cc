/**
 * Weights in files on disk.
 */
export { type FileContent, writeFileAtomic } from "./atomic-node.ts";
export { openSafetensorsFile, writeSafetensors } from "./safetensors-node.ts";
export { fileSource } from "./source-node.ts";
export { type HubId, parseHubId } from "./hub-id.ts";
export { type HubChoice, type HubOptions, type HubProgress, hubSnapshot } from "./hub-node.ts";
