/**
 * Pictures in memory, and their conversion to PNG bytes, Blobs and ImageData. Runs in Node and in the browser;
 * `patchwise/pictures/node` adds files on disk.
 */
export { toApng } from "./apng.ts";
export { type Clip, clipOfPictures, picturesOfClip, type TimedClip } from "./clip.ts";
export {
  type BlobType,
  type PixelData,
  readPicture,
  type ReadPictureOptions,
  toBlob,
  toImageData,
} from "./convert.ts";
export { type GridOptions, pictureGrid } from "./grid.ts";
export type { PictureMetadata } from "./metadata.ts";
export {
  type Frames,
  framesOf,
  type FramesShape,
  type Picture,
  type PictureShape,
  picturesOf,
  valuesOf,
  withChannels,
} from "./picture.ts";
export { toPng } from "./png.ts";
