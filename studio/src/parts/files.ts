/** Files that a page is given and that it gives. */
import type { Picture } from "../../../src/pictures/picture.ts";

export function download(bytes: BlobPart, name: string, type: string): void {
  const url = URL.createObjectURL(new Blob([bytes], { type }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  URL.revokeObjectURL(url);
}

/** A picture file at a size: scaled to cover it, and cropped around its middle. */
export async function pictureOfFile(file: Blob, width: number, height: number): Promise<Picture> {
  const bitmap = await createImageBitmap(file);
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  const [w, h] = [bitmap.width * scale, bitmap.height * scale];
  context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
  bitmap.close();
  return pictureOfCanvas(context);
}

/** What is on a canvas, without its transparency. */
export function pictureOfCanvas(
  context: OffscreenCanvasRenderingContext2D | CanvasRenderingContext2D,
): Picture {
  const { width, height } = context.canvas;
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0; i < pixels.length; i++) pixels[i] = data[4 * Math.floor(i / 3) + (i % 3)]!;
  return { width, height, channels: 3, pixels };
}
