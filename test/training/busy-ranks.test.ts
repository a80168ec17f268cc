import { expect, it } from "vitest";
import { readTrainingConfig } from "../../src/training/config/config-file.ts";
import { besideBusyRanks } from "../../src/training/scaling/busy-ranks-node.ts";

const config = `
data: { kind: images, path: /nowhere }
picture: { size: 16 }
model: { patch: 4, hidden: 32, depth: 1, heads: 1 }
training: { steps: 1, batch: 6 }
`;

it("reports why another rank cannot open its training", async () => {
  const given = readTrainingConfig("ranks.yaml", config);
  const work = { given, out: "runs/none", threads: 1, ranks: 3, rows: 2 };
  const used = besideBusyRanks(work, () => Promise.resolve("measured"));
  await expect(used).rejects.toThrow("/nowhere");
});
