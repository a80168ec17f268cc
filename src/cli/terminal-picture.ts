/**
 * Shows a picture in a terminal, by kitty's or iTerm2's protocol if the terminal supports it, and otherwise
 * as half blocks with two pixels per character.
 */
import type { WriteStream } from "node:tty";
import type { Picture } from "../pictures/picture.ts";
import { pictureGrid } from "../pictures/grid.ts";
import { fitPicture } from "../pictures/decode-node.ts";
import { encodePicture } from "../pictures/file-node.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** The required part of process.stdout or process.stderr. */
export type TerminalStream = Pick<WriteStream, "columns" | "rows" | "getColorDepth"> & {
  readonly isTTY?: boolean;
  write(text: string): unknown;
};

/** Pictures with shorter sides, in pixels, are enlarged. */
const SMALLEST = 256;
/** Width of a character in pixels on an ordinary screen. */
const CHARACTER_WIDTH = 8;
/** The most Base64 characters in one escape sequence of kitty's protocol. */
const CHUNK = 4096;

/**
 * Shows a picture below the previous output, as large as the terminal allows. Does nothing if the stream is
 * not a terminal.
 */
export async function showPicture(
  picture: Picture,
  stream: TerminalStream,
  environment: Environment = process.env,
): Promise<void> {
  if (stream.isTTY !== true) return;
  // Terminals may report no size, or 0.
  const [columns, rows] = [stream.columns || 80, stream.rows || 24];
  const protocol = inlineProtocol(environment);
  if (protocol) {
    const scale = Math.max(1, Math.floor(SMALLEST / picture.width));
    const large = pictureGrid([picture], 1, { scale });
    const png = Buffer.from(await encodePicture(large, { format: "png" }));
    const wanted = Math.ceil(large.width / CHARACTER_WIDTH);
    // Characters are about twice as high as wide.
    const whole = Math.floor((2 * (rows - 1) * large.width) / large.height);
    stream.write(`${protocol(png, Math.max(1, Math.min(columns, wanted, whole)))}\n`);
    return;
  }
  const depth = stream.getColorDepth({ ...environment });
  // Sixteen colours are too few for a picture.
  if (depth < 8) return;
  const small = await fitted(picture, columns, rows);
  stream.write(halfBlocks(small, depth === 24 ? trueColour : paletteColour));
}

type InlineProtocol = (png: Buffer, columns: number) => string;

function inlineProtocol(environment: Environment): InlineProtocol | undefined {
  const { TERM = "", TERM_PROGRAM = "", KITTY_WINDOW_ID, TMUX } = environment;
  // Multiplexers inherit the variables of the outer terminal but do not pass its pictures on.
  if (TMUX || /^(?:tmux|screen)/.test(TERM)) return undefined;
  if (KITTY_WINDOW_ID || /^xterm-(?:kitty|ghostty)$/.test(TERM) || TERM_PROGRAM === "ghostty") {
    return kitty;
  }
  return /^(?:iTerm\.app|WezTerm|mintty)$/.test(TERM_PROGRAM) ? iterm2 : undefined;
}

/** Transmits and shows (a=T) a PNG (f=100) over a number of columns, without a response (q=2). */
function kitty(png: Buffer, columns: number): string {
  const data = png.toString("base64");
  let sequences = "";
  for (let at = 0; at < data.length; at += CHUNK) {
    const keys = at === 0 ? `a=T,f=100,q=2,c=${columns},` : "";
    const more = at + CHUNK < data.length ? 1 : 0;
    sequences += `\x1b_G${keys}m=${more};${data.slice(at, at + CHUNK)}\x1b\\`;
  }
  return sequences;
}

function iterm2(png: Buffer, columns: number): string {
  return `\x1b]1337;File=inline=1;size=${png.length};width=${columns}:${png.toString("base64")}\x07`;
}

/** Resizes the picture to the screen in half blocks, minus one line for the prompt, in colour. */
async function fitted(picture: Picture, columns: number, rows: number): Promise<Picture> {
  const scale = Math.min(1, columns / picture.width, (2 * (rows - 1)) / picture.height);
  const [width, height] = [picture.width, picture.height].map((side) =>
    Math.max(1, Math.floor(side * scale)),
  ) as [number, number];
  const shape = { width, height, channels: 3 } as const;
  const fitting = { fit: "cover", background: "black" } as const;
  return { ...shape, pixels: await fitPicture(picture, shape, fitting) };
}

type Colour = (red: number, green: number, blue: number) => string;

const trueColour: Colour = (...channels) => `2;${channels.join(";")}`;

/** The nearest of 256 colours, approximately: one of 24 greys or of a 6×6×6 cube. */
const paletteColour: Colour = (red, green, blue) => {
  // The greys are 8, 18, … 238.
  if (red === green && green === blue) {
    return `5;${232 + Math.max(0, Math.min(23, Math.round((red - 8) / 10)))}`;
  }
  // The levels of the cube are 0, 95, 135, 175, 215 and 255.
  const level = (value: number) =>
    value < 48 ? 0 : value < 115 ? 1 : Math.round((value - 55) / 40);
  return `5;${16 + 36 * level(red) + 6 * level(green) + level(blue)}`;
};

/** Draws upper half blocks: the foreground is one pixel, and the background the pixel below it. */
function halfBlocks({ width, height, pixels }: Picture, colour: Colour): string {
  const at = (x: number, y: number) => {
    const from = (y * width + x) * 3;
    return colour(pixels[from]!, pixels[from + 1]!, pixels[from + 2]!);
  };
  let text = "";
  for (let y = 0; y < height; y += 2) {
    let current = "";
    for (let x = 0; x < width; x++) {
      const below = y + 1 < height ? `48;${at(x, y + 1)}` : "49";
      const colours = `\x1b[38;${at(x, y)};${below}m`;
      text += colours === current ? "▀" : `${colours}▀`;
      current = colours;
    }
    text += "\x1b[0m\n";
  }
  return text;
}
