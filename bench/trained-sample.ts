/** The suite `sample` with the weights of a model that `patchwise train` wrote, in place of random ones. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";
import { modelFiles } from "../src/models/card.ts";
import { networkSchema, traceNetwork } from "../src/models/network.ts";
import { openSafetensorsFile } from "../src/weights/index-node.ts";
import { readFloat32 } from "../src/weights/safetensors/safetensors.ts";
import type { SampleWork } from "./sample-work.ts";
import { type HostTensor, normalSource, normalTensor } from "./tensor-file.ts";

/** The only models that the peers of the suite can run; the number of classes is free. */
const cardSchema = z.object({
  network: z.looseObject({
    kind: z.literal("dit"),
    size: z.tuple([z.literal(32), z.literal(32)]),
    channels: z.literal(4),
    patch: z.literal(2),
    hidden: z.literal(384),
    depth: z.literal(12),
    heads: z.literal(6),
    learnedVariance: z.literal(false),
    condition: z.looseObject({ kind: z.literal("class"), classes: z.int().min(1) }),
  }),
  diffusion: z.object({
    process: z.literal("flow"),
    predicts: z.enum(["x0", "flow"]),
    shift: z.literal(1).optional(),
  }),
});

/**
 * The work of whole drawings by a trained model, in all steps of the suite.
 *
 * @throws RangeError if the folder holds another kind of model
 */
export function trainedSampleWork(work: SampleWork, folder: string): SampleWork {
  const card: unknown = JSON.parse(readFileSync(join(folder, modelFiles.card), "utf8"));
  const checked = cardSchema.safeParse(card);
  if (!checked.success) {
    const { path, message } = checked.error.issues[0]!;
    throw new RangeError(
      `--model ${folder} is not a DiT-S/2 of classes on latents [4, 32, 32] by rectified flow (${path.join(".")}: ${message}); train one as examples/emoji-latent.yaml describes.`,
    );
  }
  const { network, diffusion } = checked.data;
  const { classes } = network.condition;
  const { predicts } = diffusion;
  const outputs = work.channels;
  return { ...work, network, outputs, predicts, classes, stride: work.steps };
}

/** The weights of the model, and noise and classes for each batch. */
export async function* trainedSampleTensors(
  work: SampleWork,
  folder: string,
): AsyncGenerator<readonly [string, HostTensor]> {
  const { declared, buffers } = traceNetwork(networkSchema().parse(work.network)).params;
  const file = await openSafetensorsFile(join(folder, modelFiles.weights));
  for (const name of declared.keys()) {
    const { shape, data } = await readFloat32(file.entries.get(name)!);
    yield [name, { shape, data: data as Float32Array<ArrayBuffer> }];
  }
  await file.close();
  for (const [name, { value }] of buffers) {
    yield [name, { shape: value.shape, data: Float32Array.from(value.data, Number) }];
  }
  const normal = normalSource(11);
  for (const batch of work.batches) {
    const noise = normalTensor(normal, [batch, work.channels, work.size, work.size], 1);
    yield [`noise.${batch}`, noise];
    const classes = Float32Array.from({ length: batch }, (_, i) => (i * 5 + 3) % work.classes);
    yield [`y.${batch}`, { shape: [batch], data: classes }];
  }
}
