/** Renders grids of pictures side by side, each under its name. */
import sharp, { type OverlayOptions } from "sharp";
import type { Picture } from "../pictures/picture.ts";
import { encodePicture } from "../pictures/file-node.ts";

/** The height of a title and the gap between grids, in pixels. */
const [LINE, GAP] = [22, 14];

/** @returns the bytes of a PNG file */
export async function titledGrids(
  grids: readonly { readonly name: string; readonly grid: Picture }[],
): Promise<Uint8Array> {
  const height = LINE + Math.max(...grids.map(({ grid }) => grid.height));
  const parts: OverlayOptions[] = [];
  let left = 0;
  for (const { name, grid } of grids) {
    const title = `<svg xmlns="http://www.w3.org/2000/svg" width="${grid.width}" height="${LINE}"><text x="0" y="15" font-family="sans-serif" font-size="13">${escaped(name)}</text></svg>`;
    parts.push({ input: Buffer.from(title), left, top: 0 });
    const png = await encodePicture(grid, { format: "png" });
    parts.push({ input: Buffer.from(png), left, top: LINE });
    left += grid.width + GAP;
  }
  const canvas = { width: left - GAP, height, channels: 3, background: "white" } as const;
  return sharp({ create: canvas }).composite(parts).png().toBuffer();
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
