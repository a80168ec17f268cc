/** Safetensors files on disk, and downloads from the Hugging Face Hub. */
export { type FileContent, writeFileAtomic } from "./sources/atomic-node.ts";
export { openSafetensorsFile, writeSafetensors } from "./safetensors/file-node.ts";
export { fileSource } from "./sources/file-node.ts";
export { type HubId, parseHubId } from "./hub/id.ts";
export { type HubChoice, type HubOptions, type HubProgress, hubSnapshot } from "./hub/hub-node.ts";
export { diskFolder } from "./sources/folder-node.ts";
