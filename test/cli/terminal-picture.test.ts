import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { showPicture } from "../../src/cli/terminal-picture.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import { generator } from "../weights/mutate.ts";

const picture = (width: number, height: number, channels: 1 | 3 = 3): Picture => ({
  width,
  height,
  channels,
  pixels: Uint8Array.from({ length: width * height * channels }, (_, i) => (37 * i) % 256),
});

interface Terminal {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  readonly depth?: number;
}

async function shown(
  what: Picture,
  environment: Record<string, string>,
  { isTTY = true, columns = 100, rows = 50, depth = 24 }: Terminal = {},
): Promise<string> {
  const written: string[] = [];
  const stream = {
    isTTY,
    columns,
    rows,
    getColorDepth: () => depth,
    write: (text: string) => written.push(text),
  };
  await showPicture(what, stream, environment);
  return written.join("");
}

const escape = "\x1b";

/** The pixels of half blocks, as a terminal of 24 bits would show them. */
function pixelsOf(text: string): number[][] {
  const rows: number[][] = [];
  for (const line of text.split("\n").slice(0, -1)) {
    let [above, below]: number[][] = [[], []];
    const pair: [number[], number[]] = [[], []];
    for (const [, codes, block] of line.matchAll(/\x1b\[([\d;]*)m|(▀)/g)) {
      if (block) {
        pair[0].push(...above!);
        pair[1].push(...below!);
        continue;
      }
      const numbers = codes!.split(";").map(Number);
      above = numbers.slice(2, 5);
      below = numbers.slice(7, 10);
    }
    rows.push(...pair.filter((row) => row.length > 0));
  }
  return rows;
}

const nestedRows = ({ width, height, pixels }: Picture) =>
  Array.from({ length: height }, (_, y) => [
    ...pixels.subarray(3 * width * y, 3 * width * (y + 1)),
  ]);

describe("showPicture in half blocks", () => {
  it.each([
    [6, 4],
    [5, 3],
    [1, 1],
  ])("shows every pixel of %d×%d", async (width, height) => {
    const what = picture(width, height);
    const text = await shown(what, {});
    expect(pixelsOf(text)).toEqual(nestedRows(what));
    expect(text.endsWith(`${escape}[0m\n`)).toBe(true);
    expect(text.split("\n").length - 1).toBe(Math.ceil(height / 2));
  });

  it("shows grey pictures", async () => {
    const what = picture(4, 2, 1);
    const expected = [...what.pixels].flatMap((value) => [value, value, value]);
    expect(pixelsOf(await shown(what, {})).flat()).toEqual(expected);
  });

  it("fits the terminal in width and height", async () => {
    const wide = pixelsOf(await shown(picture(64, 32), {}, { columns: 16 }));
    expect([wide.length, wide[0]!.length / 3]).toEqual([8, 16]);
    const tall = pixelsOf(await shown(picture(64, 64), {}, { rows: 9 }));
    expect([tall.length, tall[0]!.length / 3]).toEqual([16, 16]);
    const unknown = pixelsOf(await shown(picture(160, 8), {}, { columns: 0, rows: 0 }));
    expect([unknown.length, unknown[0]!.length / 3]).toEqual([4, 80]);
  });

  it("sets a colour once for adjacent pixels", async () => {
    const plain = { ...picture(5, 2), pixels: new Uint8Array(30).fill(7) };
    expect(await shown(plain, {})).toBe(`${escape}[38;2;7;7;7;48;2;7;7;7m▀▀▀▀▀${escape}[0m\n`);
  });

  it("uses the nearest of 256 colours, and shows nothing with 16 colours", async () => {
    const colours = [
      [255, 0, 0],
      [0, 100, 255],
      [94, 96, 134],
      [0, 0, 0],
      [128, 128, 128],
      [255, 255, 255],
    ];
    const what = { width: 6, height: 1, channels: 3, pixels: Uint8Array.from(colours.flat()) };
    const text = await shown(what as Picture, {}, { depth: 8 });
    expect([...text.matchAll(/38;5;(\d+);49m/g)].map(([, index]) => Number(index))).toEqual([
      196, 27, 60, 232, 244, 255,
    ]);
    expect(await shown(picture(4, 4), {}, { depth: 4 })).toBe("");
  });

  it("shows nothing outside a terminal", async () => {
    expect(await shown(picture(4, 4), {}, { isTTY: false })).toBe("");
    expect(await shown(picture(4, 4), { TERM: "xterm-kitty" }, { isTTY: false })).toBe("");
  });
});

describe("showPicture by kitty's protocol", () => {
  it.each([
    { KITTY_WINDOW_ID: "1" },
    { TERM: "xterm-kitty" },
    { TERM: "xterm-ghostty" },
    { TERM_PROGRAM: "ghostty" },
  ])("sends a PNG in pieces to %o", async (environment) => {
    const random = generator(1);
    const pixels = Uint8Array.from({ length: 64 * 48 * 3 }, () => 256 * random());
    const what = { ...picture(64, 48), pixels };
    const text = await shown(what, environment);
    const pieces = [...text.matchAll(/\x1b_G([^;]*);([^\x1b]*)\x1b\\/g)].map(
      ([, keys, data]) => [keys!, data!] as const,
    );
    expect(pieces.length).toBeGreaterThan(1);
    expect(`${pieces.map(([keys, data]) => `\x1b_G${keys};${data}\x1b\\`).join("")}\n`).toBe(text);
    expect(pieces.map(([keys]) => keys)).toEqual(
      pieces.map((_, i) => {
        const more = `m=${i < pieces.length - 1 ? 1 : 0}`;
        return i === 0 ? `a=T,f=100,q=2,c=32,${more}` : more;
      }),
    );
    expect(pieces.every(([, data]) => data.length <= 4096)).toBe(true);
    // Every pixel four times a side, so that it can be seen.
    const png = Buffer.from(pieces.map(([, data]) => data).join(""), "base64");
    const { data, info } = await sharp(png)
      .resize(64, 48, { kernel: "nearest" })
      .raw()
      .toBuffer({ resolveWithObject: true });
    expect(info.channels).toBe(3);
    expect([...data]).toEqual([...what.pixels]);
    expect(await sharp(png).metadata()).toMatchObject({ width: 256, height: 192 });
  });

  it("fits the terminal in width and height", async () => {
    const columns = async (what: Picture, terminal: Terminal) =>
      /,c=(\d+),/.exec(await shown(what, { TERM: "xterm-kitty" }, terminal))![1];
    expect(await columns(picture(800, 100, 1), {})).toBe("100");
    expect(await columns(picture(800, 100, 1), { columns: 120 })).toBe("100");
    expect(await columns(picture(800, 100, 1), { columns: 60 })).toBe("60");
    expect(await columns(picture(300, 600, 1), { rows: 11 })).toBe("10");
    expect(await columns(picture(1, 300, 1), { rows: 2 })).toBe("1");
  });
});

describe("showPicture by iTerm2's protocol", () => {
  it.each(["iTerm.app", "WezTerm", "mintty"])("sends a PNG to %s", async (TERM_PROGRAM) => {
    const text = await shown(picture(256, 128), { TERM_PROGRAM });
    const [, size, data] = /^\x1b\]1337;File=inline=1;size=(\d+);width=32:([^\x07]*)\x07\n$/.exec(
      text,
    )!;
    const png = Buffer.from(data!, "base64");
    expect(Number(size)).toBe(png.length);
    expect([...(await sharp(png).raw().toBuffer())]).toEqual([...picture(256, 128).pixels]);
  });
});

describe("showPicture in a multiplexer", () => {
  it.each([
    { KITTY_WINDOW_ID: "1", TMUX: "/tmp/tmux-0/default,1,0" },
    { KITTY_WINDOW_ID: "1", TERM: "screen-256color" },
    { TERM_PROGRAM: "iTerm.app", TERM: "tmux-256color" },
  ])("draws half blocks in %o", async (environment) => {
    expect(await shown(picture(4, 4), environment)).toMatch(/^\x1b\[38;2;/);
  });
});
