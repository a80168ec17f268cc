/** Our engine's step of a LoRA, on a base in float32 and in 8-bit integers, beside its forward pass. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { graphOf } from "../src/engine/graph/graph.ts";
import { mapValues } from "../src/engine/records.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../src/engine/runtime/stored-weight.ts";
import { attentionAndMlp, isLora, withLora } from "../src/nn/lora.ts";
import { createParams } from "../src/nn/params.ts";
import { type FixedType, fixedTypes, withFixedWeights } from "../src/training/fixed-weights.ts";
import { adamW } from "../src/training/optimizers.ts";
import { trainingStep } from "../src/training/step.ts";
import { createTrainer } from "../src/training/trainer.ts";
import { type Contender, timed } from "./contender.ts";
import { arrayOf, batchOf, ditLoss } from "./dit-shaped.ts";
import type { LoraWork } from "./lora-work.ts";
import { readTensors } from "./tensor-file.ts";

const contender: Contender = {
  async setup(workDir) {
    const work = JSON.parse(readFileSync(join(workDir, "work.json"), "utf8")) as LoraWork;
    const tensors = readTensors(workDir);
    const { rank, alpha, learningRate, beta1, beta2, epsilon, weightDecay, emaDecay, threads } =
      work;
    const inputs = batchOf(work, tensors);
    const weights = arrayWeights(
      Object.fromEntries([...tensors.keys()].map((name) => [name, arrayOf(tensors, name)])),
    );
    const backend = nodeBackend("cpu");
    const forward = await backend.compile(graphOf({ loss: ditLoss(createParams(), work) }), {
      weights,
      prepack: true,
      threads,
    });

    const p = withLora(createParams(), { rank, alpha, targets: attentionAndMlp });
    const loss = ditLoss(p, work);
    const own = [...p.declared].filter(([name]) => isLora(name));
    const params = mapValues(Object.fromEntries(own), ({ tensor }) => tensor);
    const optimizer = adamW({ learningRate, beta1, beta2, epsilon, weightDecay });
    const step = trainingStep({ loss, params, optimizer, emaDecay });
    const fixed = (name: string) => (isLora(name) ? undefined : weights(name));
    const trainerOn = (type: FixedType) =>
      createTrainer(
        backend,
        withFixedWeights(step, fixed, type),
        mapValues(params, (_, name) => arrayOf(tensors, name)),
        { threads },
      );
    const trainers = await Promise.all(fixedTypes.map(trainerOn));
    return {
      settings: `onnxruntime-node, ${threads} threads; parts: ${fixedTypes.map((type) => `step ${type} on a base in ${type}`).join(", ")}`,
      async step() {
        const once = await timed(() => forward.run(inputs));
        const [exact, rounded] = trainers as [(typeof trainers)[0], (typeof trainers)[0]];
        const { ms, result } = await timed(() => exact.step(inputs));
        const int8 = await timed(() => rounded.step(inputs));
        return {
          ms,
          value: result.loss,
          parts: { forward: once.ms, step: ms, "step int8": int8.ms },
        };
      },
    };
  },
};

export default contender;
