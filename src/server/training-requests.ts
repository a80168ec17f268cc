/** From the body of a request to a training: its pictures come with it, and no field of its config names a file. */
import * as z from "zod";
import { type TrainingConfig, trainingConfigSchema } from "../training/config/config.ts";
import { explainIssues } from "../training/config/explain.ts";
import { trainingFolders } from "./job-store.ts";
import type { Draft } from "./jobs.ts";
import { trainingLimits as most } from "./limits.ts";
import { Problem } from "./problem.ts";
import { checkPixels, pictureBytes } from "./requests.ts";

const bodySchema = z.strictObject({
  kind: z.literal("train"),
  name: z
    .string()
    .regex(/^\w[\w.-]{0,63}$/, "give up to 64 letters, digits, “-”, “_” and “.”, no “.” first"),
  pictures: z
    .array(z.strictObject({ image: z.string(), caption: z.string().max(1000).optional() }))
    .min(1)
    .max(10_000),
  config: z.strictObject({
    picture: z.unknown().optional(),
    model: z.unknown().optional(),
    diffusion: z.unknown().optional(),
    training: z.unknown().optional(),
    sampling: z.unknown().optional(),
    samples: z.unknown().optional(),
    validation: z.unknown().optional(),
    seed: z.unknown().optional(),
  }),
});

/** The schema of requests, for OpenAPI. */
export const trainingRequestSchema = (): object => z.toJSONSchema(bodySchema);

/** Checkpoints of a training here: what a kill costs at most. */
const CHECKPOINT_MINUTES = 0.5;
/** Steps between losses that a restart finds again. */
const LOG_STEPS = 5;

/**
 * Checks the request of a training.
 *
 * @throws Problem or FormatError that says what is wrong
 */
export async function trainingDraftOf(body: Readonly<Record<string, unknown>>): Promise<Draft> {
  const result = bodySchema.safeParse(body);
  if (!result.success) {
    const { path, message } = result.error.issues[0]!;
    const param = path.join(".");
    throw new Problem(400, `${param || "The training"} is not as expected: ${message}.`, { param });
  }
  const { name, pictures, config: given } = result.data;
  const config = checkedConfig(name, given);
  const captions = pictures.map(({ caption = "" }) => caption.trim());
  const isCaptioned = captions.some((caption) => caption !== "");
  const files: Record<string, Uint8Array> = {};
  const lines: string[] = [];
  for (const [i, { image }] of pictures.entries()) {
    const param = `pictures.${i}.image`;
    const bytes = pictureBytes(image, param)!;
    // Its size does not matter, since it is converted, but it is decoded as it is.
    await checkPixels(bytes, param, { pixels: 2048 * 2048 });
    const file = `${String(i).padStart(5, "0")}.${extensionOf(bytes)}`;
    files[`${trainingFolders.data}/${file}`] = bytes;
    lines.push(JSON.stringify({ file_name: file, text: captions[i]! }));
  }
  if (isCaptioned) {
    files[`${trainingFolders.data}/metadata.jsonl`] = Buffer.from(`${lines.join("\n")}\n`);
  }
  return { kind: "train", name, config, pictures: pictures.length, files };
}

/** The extension by which a data set finds a picture. */
function extensionOf(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.subarray(0, 12)).toString("latin1");
  if (text.startsWith("\x89PNG")) return "png";
  if (text.startsWith("\xff\xd8")) return "jpg";
  if (text.startsWith("GIF8")) return "gif";
  return text.slice(8) === "WEBP" ? "webp" : "avif";
}

function checkedConfig(name: string, given: Readonly<Record<string, unknown>>): TrainingConfig {
  const schema = trainingConfigSchema();
  const present = Object.fromEntries(
    Object.entries(given).filter(([, value]) => value !== undefined && value !== null),
  );
  const result = schema.safeParse(
    {
      ...present,
      name,
      // Its place is known once it is accepted.
      data: { kind: "images", path: trainingFolders.data, undescribed: "keep" },
      checkpoint: { minutes: CHECKPOINT_MINUTES },
      log: { steps: LOG_STEPS },
    },
    { reportInput: true },
  );
  if (!result.success) {
    const { path, message } = explainIssues(result.error.issues, schema);
    throw new Problem(400, message, { param: `config.${path.join(".")}` });
  }
  refuseFiles(result.data);
  checkTrainingLimits(result.data);
  return result.data;
}

/** @throws Problem for a field that names a file of this machine */
function refuseFiles({ training, validation, model }: TrainingConfig): void {
  const named = {
    "training.from": training.from,
    "training.features.extractor": training.features?.extractor,
    "validation.data": validation.data,
    "model.prompt.words": model.prompt.words,
  };
  for (const [field, value] of Object.entries(named)) {
    if (value === undefined) continue;
    throw new Problem(
      400,
      `${field} names files of the server, which requests may not; leave it out.`,
      {
        param: `config.${field}`,
      },
    );
  }
}

function checkTrainingLimits({ picture, training, samples }: TrainingConfig): void {
  const { size, frames } = picture;
  const [height, width] = typeof size === "number" ? [size, size] : size;
  const { steps, batch, accumulate } = training;
  if (steps === undefined) {
    throw new Problem(400, "config.training.steps is missing; say how many steps to train.", {
      param: "config.training.steps",
    });
  }
  if (frames !== undefined) {
    throw new Problem(400, "Clips are not trained on over HTTP; use patchwise train for them.", {
      param: "config.picture.frames",
    });
  }
  const asked: Readonly<Record<string, readonly [value: number, limit: number]>> = {
    "picture.size": [width * height, most.pixels],
    "training.steps": [steps, most.steps],
    "training.batch": [batch, most.batch],
    "training.accumulate": [accumulate, most.accumulate],
    "samples.each": [samples.each * Math.max(1, samples.of?.length ?? 4), most.samples],
    "samples.grids": [
      samples.steps === undefined ? samples.grids : steps / samples.steps,
      most.grids,
    ],
  };
  for (const [field, [value, limit]] of Object.entries(asked)) {
    if (value <= limit) continue;
    throw new Problem(
      400,
      `config.${field} asks for ${value}, but this server takes at most ${limit}; give less.`,
      { param: `config.${field}`, code: "limit_exceeded" },
    );
  }
}
