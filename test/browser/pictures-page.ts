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
