/**
 * Writes emoji of sixteen subjects in four styles as a folder for each subject: data for a class-conditional model that learns in minutes.
 *
 *     node scripts/run.mjs scripts/emoji/class-folders.ts --out runs/emoji-classes
 *
 * The name of a folder begins with the code points of its subject, by which `npm run bench -- pareto` knows what is right.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import sharp from "sharp";
import { drawings, SIDE } from "./pictures.ts";

/** Subjects that differ in shape or colour, as hexcodes of emojibase without variation selectors. */
const subjects = [
  "1F34C",
  "1F34E",
  "1F347",
  "1F355",
  "1F333",
  "1F431",
  "1F436",
  "1F47B",
  "1F525",
  "1F680",
  "1F697",
  "1F3E0",
  "2600",
  "2764",
  "26BD",
  "2B50",
];

const { values } = parseArgs({ options: { out: { type: "string" } } });
if (values.out === undefined) throw new Error("Give --out FOLDER, where the pictures go.");

let count = 0;
for (const { hexcode, label, style, rgba } of await drawings()) {
  const code = hexcode.replace(/-FE0F$/, "");
  if (!subjects.includes(code)) continue;
  const folder = join(values.out, `${code} ${label}`);
  await mkdir(folder, { recursive: true });
  await sharp(rgba, { raw: { width: SIDE, height: SIDE, channels: 4 } })
    .flatten({ background: "white" })
    .png()
    .toFile(join(folder, `${style}.png`));
  count++;
}
process.stdout.write(`${values.out}: ${count} pictures of ${subjects.length} subjects\n`);
