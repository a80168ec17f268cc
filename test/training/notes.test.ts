import { expect, it } from "vitest";
import { readTrainingConfig } from "../../src/training/config/config-file.ts";
import { startNotes } from "../../src/training/run/notes.ts";
import type { RunConfig } from "../../src/training/config/config.ts";

const notesOf = (kind: string, ranks: number | undefined, resumedAt?: number) => {
  const config = readTrainingConfig(
    "a.yaml",
    `data: { kind: images, path: photos }
picture: { size: 16 }
autoencoder: { kind: ${kind} }
training: { steps: 2, batch: 4 }
`,
  ) as unknown as RunConfig;
  return startNotes(config, { info: { count: 4 } } as never, resumedAt, ranks).join(" ");
};

it("say that the losses of a VQGAN depend on the number of ranks, also when it resumes", () => {
  const said = /batch norm of a VQGAN takes the statistics of each rank's rows/;
  expect(notesOf("vq", 2)).toMatch(said);
  expect(notesOf("vq", 2, 10)).toMatch(said);
  expect(notesOf("vq", 1)).not.toMatch(said);
  expect(notesOf("vq", undefined)).not.toMatch(said);
  expect(notesOf("kl", 2)).not.toMatch(said);
});
