/** Pictures with text: grids under their names, and the drawings of an evaluation with their prompts. */
import sharp, { type OverlayOptions } from "sharp";
import { judgeShape } from "../evaluation/judge.ts";
import { fitPicture } from "../pictures/decode-node.ts";
import { encodePicture } from "../pictures/file-node.ts";
import type { Picture } from "../pictures/picture.ts";
import { type Evaluated, realPicture, type SeededPrompt } from "./evaluate-node.ts";

/** The height of a title and the gap between grids, in pixels. */
const [LINE, GAP] = [22, 14];

/**
 * Renders grids of pictures side by side, each under its name.
 *
 * @returns the bytes of a PNG file
 */
export async function titledGrids(
  grids: readonly { readonly name: string; readonly grid: Picture }[],
): Promise<Uint8Array> {
  const height = LINE + Math.max(...grids.map(({ grid }) => grid.height));
  const parts: OverlayOptions[] = [];
  let left = 0;
  for (const { name, grid } of grids) {
    parts.push({ input: drawing(grid.width, LINE, text(name, 0, 15, 13)), left, top: 0 });
    const png = await encodePicture(grid, { format: "png" });
    parts.push({ input: Buffer.from(png), left, top: LINE });
    left += grid.width + GAP;
  }
  const canvas = { width: left - GAP, height, channels: 3, background: "white" } as const;
  return sharp({ create: canvas }).composite(parts).png().toBuffer();
}

/** Sizes in pixels: drawing, width and height of a cell, heading, margin of a cell. */
const [DRAWING, WIDE, HIGH, HEADING, MARGIN] = [64, 156, 108, 30, 6];
const COLUMNS = 10;
const REAL = judgeShape.width;
/** The number of letters that fit in a cell; Chinese characters are twice as wide. */
const LETTERS = 23;

/** Colours of frames: the first answer is right, one of the first five is right, none is right. */
const frames = ["#2a9d3a", "#e0a100", "#c9c9c9"] as const;

/**
 * Renders every drawing of an evaluation with its prompt and the judge's answer.
 *
 * @returns the bytes of a PNG file
 */
export async function contactSheet(
  prompts: readonly SeededPrompt[],
  { evaluation, pictures, verdicts, reference }: Evaluated,
): Promise<Uint8Array> {
  const kinds = [...new Set(prompts.map(({ kind }) => kind))];
  const groups = kinds.map((kind) => ({
    kind,
    rows: prompts.flatMap((prompt, row) => (prompt.kind === kind ? [row] : [])),
  }));
  const heights = groups.map(({ rows }) => HEADING + HIGH * Math.ceil(rows.length / COLUMNS));
  const width = COLUMNS * WIDE;
  const height = heights.reduce((sum, each) => sum + each, 0);
  const canvas = new Uint8Array(width * height * 3).fill(255);
  const marks: string[] = [];
  let top = 0;
  for (const [g, { kind, rows }] of groups.entries()) {
    const { top1, top5 } = evaluation.byKind[kind]!;
    const heading = `${kind}: ${rows.length} prompts, top-1 ${(100 * top1).toFixed(1)} %, top-5 ${(100 * top5).toFixed(1)} %`;
    marks.push(text(heading, MARGIN, top + 20, 15));
    for (const [i, row] of rows.entries()) {
      const left = (i % COLUMNS) * WIDE + MARGIN;
      const y = top + HEADING + Math.floor(i / COLUMNS) * HIGH;
      const { found, rank } = verdicts[row]!;
      const nearest = found[0]!;
      const shape = { height: DRAWING, width: DRAWING, channels: 3 } as const;
      const fitting = { fit: "contain", background: "white" } as const;
      put(await fitPicture(pictures[row]!, shape, fitting), DRAWING, left + 2, y + 2);
      put(realPicture(reference, nearest.index).pixels, REAL, left + DRAWING + 16, y + 14);
      const frame = frames[rank === 0 ? 0 : rank > 0 ? 1 : 2];
      const answer = clipped(`→ ${reference.set.pictures[nearest.index]!.label}`);
      marks.push(
        `<rect x="${left}" y="${y}" width="${DRAWING + 4}" height="${DRAWING + 4}" fill="none" stroke="${frame}" stroke-width="2"/>`,
        text(clipped(prompts[row]!.prompt), left, y + DRAWING + 18, 11),
        text(answer, left, y + DRAWING + 32, 10, "#777"),
      );
    }
    top += heights[g]!;
  }
  return sharp(canvas, { raw: { width, height, channels: 3 }, limitInputPixels: false })
    .composite([{ input: drawing(width, height, marks.join("")), left: 0, top: 0 }])
    .png()
    .toBuffer();

  function put(pixels: Uint8Array, side: number, left: number, y: number): void {
    for (let row = 0; row < side; row++) {
      const own = pixels.subarray(row * side * 3, (row + 1) * side * 3);
      canvas.set(own, ((y + row) * width + left) * 3);
    }
  }
}

function drawing(width: number, height: number, marks: string): Buffer {
  return Buffer.from(
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif">${marks}</svg>`,
  );
}

function text(content: string, x: number, y: number, size: number, colour = "#000"): string {
  const escaped = content.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return `<text x="${x}" y="${y}" font-size="${size}" fill="${colour}">${escaped}</text>`;
}

/** Truncates a text to the width of a cell. */
function clipped(content: string): string {
  let [room, end] = [LETTERS, 0];
  for (const letter of content) {
    room -= letter > "\u2e80" ? 2 : 1;
    if (room < 0) return `${content.slice(0, end)}…`;
    end += letter.length;
  }
  return content;
}
