/** Functions that pictures.test.ts calls inside a page. Arguments and results are plain data. */
import {
  type BlobType,
  readPicture,
  toBlob,
  toImageData,
  toPng,
} from "../../src/pictures/index.ts";

interface PlainPicture {
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
  readonly pixels: number[];
}

const pictureOf = ({ pixels, ...shape }: PlainPicture) => ({
  ...shape,
  pixels: Uint8Array.from(pixels),
});

export async function png(picture: PlainPicture): Promise<number[]> {
  return [...(await toPng(pictureOf(picture)))];
}

export async function blob(
  picture: PlainPicture,
  type?: BlobType,
): Promise<{ type: string; bytes: number[] }> {
  const made = await toBlob(pictureOf(picture), type);
  return { type: made.type, bytes: [...new Uint8Array(await made.arrayBuffer())] };
}

/** Returns whether the result is of the page's own class, and its data. */
export function imageData(picture: PlainPicture): { own: boolean; data: number[] } {
  const made = toImageData(pictureOf(picture));
  return { own: made instanceof ImageData, data: [...made.data] };
}

export async function read(bytes: number[], background?: "black"): Promise<PlainPicture> {
  const options = { name: "cat.png", ...(background && { background }) };
  const { width, height, channels, pixels } = await readPicture(Uint8Array.from(bytes), options);
  return { width, height, channels, pixels: [...pixels] };
}

/** What a browser sees of a media file. */
interface Played {
  readonly width: number;
  readonly height: number;
  readonly frames: number;
  /** Seconds. */
  readonly duration: number;
}

/** Loads an animated picture and decodes all of its frames. */
export async function animation(bytes: number[], type: string): Promise<Played> {
  const data = Uint8Array.from(bytes);
  const shown = document.createElement("img");
  shown.src = URL.createObjectURL(new Blob([data], { type }));
  await shown.decode();
  const decoder = new ImageDecoder({ data, type });
  await decoder.tracks.ready;
  const frames = decoder.tracks.selectedTrack?.frameCount ?? 0;
  let microseconds = 0;
  for (let frameIndex = 0; frameIndex < frames; frameIndex++) {
    const { image } = await decoder.decode({ frameIndex });
    microseconds += image.duration ?? 0;
    image.close();
  }
  const { naturalWidth: width, naturalHeight: height } = shown;
  return { width, height, frames, duration: microseconds / 1e6 };
}

/** Loads a film and plays it to its end. */
export async function film(bytes: number[], type: string): Promise<Played> {
  const video = document.createElement("video");
  video.muted = true;
  video.src = URL.createObjectURL(new Blob([Uint8Array.from(bytes)], { type }));
  document.body.append(video);
  const ended = new Promise((resolve, reject) => {
    video.addEventListener("ended", resolve);
    video.addEventListener("error", () => reject(new Error(video.error?.message)));
  });
  await video.play();
  await ended;
  const { videoWidth: width, videoHeight: height, duration } = video;
  return { width, height, duration, frames: video.getVideoPlaybackQuality().totalVideoFrames };
}
