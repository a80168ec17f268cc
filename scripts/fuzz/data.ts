/** Data sets of one file, opened as a training opens them. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";
import { dataSchema } from "../../src/data/config.ts";
import { openData } from "../../src/data/open-node.ts";
import type { FuzzTarget } from "./target.ts";

const shape = { width: 2, height: 2, channels: 3 } as const;

/** A PNG of one colour. */
export async function colour(red: number): Promise<Uint8Array> {
  const background = { r: red, g: 0, b: 0 };
  return new Uint8Array(
    await sharp({ create: { width: 3, height: 2, channels: 3, background } })
      .png()
      .toBuffer(),
  );
}

/**
 * Returns a function that writes its input to `file` of the folder, opens the data set and reads all of it.
 *
 * @param config the config without its path
 * @param path of the data set within the folder; the file itself by default
 */
export function dataReader(
  folder: string,
  file: string,
  config: Readonly<Record<string, unknown>>,
  path = file,
): FuzzTarget["read"] {
  const parsed = dataSchema.parse({ ...config, path: join(folder, path) });
  return async (input) => {
    await writeFile(join(folder, file), input);
    const data = await openData(parsed, shape);
    try {
      for (let i = 0; i < Math.min(data.count, 2); i++) await data.example(i);
    } finally {
      await data.close();
    }
  };
}
