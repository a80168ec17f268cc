/**
 * All of `patchwise/pictures` with decoders and encoders of its own in place of a browser's, and picture files on disk.
 */
export * from "./index.ts";
export {
  type ClipFormat,
  clipFormat,
  type ClipOptions,
  encodeClip,
  readClip,
  writeClip,
} from "./clip-file-node.ts";
export { readPicture, readPictureFile } from "./decode-node.ts";
export {
  encodePicture,
  type PictureFormat,
  pictureFormat,
  type PictureOptions,
  readPictureMetadata,
  toBlob,
  writePicture,
} from "./file-node.ts";
