import { nodeBackend } from "patchwise/engine/node";
import { ditPresets, traceNetwork } from "patchwise/models";
import { initialize } from "patchwise/nn";
import { openPipeline } from "patchwise/pipelines/node";
import { finished } from "patchwise/pipelines";
import { randomKey } from "patchwise/engine";
import { trainModel } from "patchwise/training";
import { saveModel } from "patchwise/training/node";

export async function trainAndDraw(folder) {
  const backend = nodeBackend("cpu");
  const small = { size: [8, 8], channels: 3, patch: 4, hidden: 32, depth: 2, heads: 2 };
  const condition = { kind: "class", classes: 2, nullClass: true };
  const network = { kind: "dit", ...ditPresets["DiT-S/8"], ...small, condition };
  const weights = initialize(traceNetwork(network).params, randomKey(7));
  const filled = (value) => new Uint8Array(8 * 8 * 3).fill(value);
  const picture = { width: 8, height: 8, channels: 3 };
  const pictures = ["dark", "light"].map((label, i) => ({ ...picture, pixels: filled(i * 255), label }));
  const model = await trainModel({ network, weights, pictures, steps: 50, batch: 8, backend });
  await saveModel(folder, model);
  const pipeline = await openPipeline(folder);
  return finished(pipeline.generate({ class: "light", steps: 4, seed: 1 }));
}
