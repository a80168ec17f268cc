/** The entry point of a process that takes the steps of a rank until it is ended. */
import { tellParent } from "../../engine/runtime/parent-node.ts";
import { nodeBackend } from "../../engine/runtime/ort-node.ts";
import { failure } from "../../engine/runtime/worker-protocol.ts";
import { keepFreedMemory } from "../collective/freed-memory-node.ts";
import { configuredStep } from "../configured-step.ts";
import { openedTraining } from "../run/opened-training-node.ts";
import type { BusyRank, FromBusyRank } from "./busy-ranks-node.ts";
import { rankTrainer, zeroInputs } from "./rank-steps.ts";

const tell: (message: FromBusyRank) => void = tellParent;

process.once("message", (work: BusyRank) => void take(work));
process.once("disconnect", () => process.exit());

async function take({ given, out, threads, ranks, rows }: BusyRank): Promise<void> {
  keepFreedMemory();
  try {
    const backend = nodeBackend("cpu");
    await openedTraining(given, { backend, out }, async ({ config, task }) => {
      const training = { ...config.training, threads };
      const step = configuredStep(task, { ...training, accumulate: 1 });
      const trainer = await rankTrainer(backend, step, task, training, ranks);
      const inputs = () => zeroInputs(step, rows);
      await trainer.step(inputs());
      tell({ kind: "busy" });
      while (process.connected) await trainer.step(inputs());
    });
  } catch (error) {
    tell({ kind: "refused", failure: failure(error) });
  }
}
