/** Our engine's training step: forward, backward, AdamW and EMA. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { mapValues } from "../src/engine/records.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { createParams } from "../src/nn/params.ts";
import { adamW } from "../src/training/optimizers.ts";
import { trainingStep } from "../src/training/step.ts";
import { createTrainer } from "../src/training/trainer.ts";
import { type Contender, timed } from "./contender.ts";
import { arrayOf, batchOf, ditLoss } from "./dit-shaped.ts";
import { readTensors } from "./tensor-file.ts";
import type { TrainWork } from "./train-work.ts";

const contender: Contender = {
  async setup(workDir) {
    const work = JSON.parse(readFileSync(join(workDir, "work.json"), "utf8")) as TrainWork;
    const tensors = readTensors(workDir);
    const p = createParams();
    const loss = ditLoss(p, work);
    const params = mapValues(Object.fromEntries(p.declared), ({ tensor }) => tensor);
    const { learningRate, beta1, beta2, epsilon, weightDecay, emaDecay } = work;
    const optimizer = adamW({ learningRate, beta1, beta2, epsilon, weightDecay });
    const inputs = batchOf(work, tensors);
    const trainer = await createTrainer(
      nodeBackend("cpu"),
      trainingStep({ loss, params, optimizer, emaDecay }),
      mapValues(params, (_, name) => arrayOf(tensors, name)),
      { threads: work.threads },
    );
    return {
      settings: `onnxruntime-node, ${work.threads} threads`,
      async step() {
        const { ms, result } = await timed(() => trainer.step(inputs));
        return { ms, value: result.loss };
      },
    };
  },
};

export default contender;
