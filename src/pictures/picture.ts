/** The size and channels that pictures are brought to: 3 for sRGB colours, 1 for grey. */
export interface PictureShape {
  readonly height: number;
  readonly width: number;
  readonly channels: 1 | 3;
}

/** A picture in memory. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
  /** [height, width, channels], row-major, sRGB or grey from 0 to 255. */
  readonly pixels: Uint8Array;
}
