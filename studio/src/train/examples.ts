/** The pictures to train on, each with a caption. */
import type { Picture } from "../../../src/pictures/picture.ts";
import { pictureOfFile } from "../parts/files.ts";

export interface TrainingExample {
  readonly caption: string;
  readonly picture: Picture;
}

/** Pictures of files, captioned by the names of the files without their numbers: "red-tulip (2).jpg" is "red tulip". */
export async function examplesOf(files: Iterable<File>, side: number): Promise<TrainingExample[]> {
  const examples: TrainingExample[] = [];
  for (const file of files) {
    if (!file.type.startsWith("image/")) continue;
    const caption = file.name
      .replace(/\.[^.]*$/, "")
      .replace(/[\s_()-]*\d*[\s_()-]*$/, "")
      .replace(/[_-]+/g, " ")
      .trim();
    examples.push({ caption, picture: await pictureOfFile(file, side, side) });
  }
  return examples;
}

/** At most so many prompts are drawn at each checkpoint. */
const MOST_PROMPTS = 4;

/** Captions that differ, from the whole set. */
export function promptsOf(examples: readonly TrainingExample[]): readonly string[] {
  const all = [...new Set(examples.map(({ caption }) => caption))];
  const count = Math.min(MOST_PROMPTS, all.length);
  return Array.from(
    { length: count },
    (_, i) => all[Math.round((i * (all.length - 1)) / Math.max(1, count - 1))]!,
  );
}
