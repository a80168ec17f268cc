/**
 * The interface of AUTOMATIC1111's web UI (https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API), which many programs
 * speak. Fields that would change the picture and have no counterpart are refused unless they have their neutral value.
 */
import { type Context, Hono } from "hono";
import { quote } from "../../engine/errors.ts";
import { parametersText } from "../../pictures/metadata.ts";
import { recordedSettings } from "../../pipelines/settings.ts";
import type { Services } from "../app.ts";
import { jsonBody, withoutNulls } from "../body.ts";
import type { DrawRecord } from "../job-store.ts";
import type { Entry } from "../jobs.ts";
import { Problem } from "../problem.ts";
import { draftOf, pictureBytes } from "../requests.ts";

/** That interface's names of our samplers. */
const samplerNames: Readonly<Record<string, string>> = {
  Euler: "euler",
  "Euler a": "euler-ancestral",
  Heun: "heun",
  DDIM: "ddim",
  DDPM: "ddpm",
  "DPM++ 2M": "dpmpp-2m-sigma",
  "DPM++ 2M SDE": "dpmpp-2m-sde",
  "DPM++ 3M": "dpmpp-3m",
  UniPC: "unipc",
};

/** Our settings by that interface's fields. */
const renamed: Readonly<Record<string, string>> = {
  prompt: "prompt",
  negative_prompt: "negativePrompt",
  steps: "steps",
  cfg_scale: "guidance",
  width: "width",
  height: "height",
  denoising_strength: "strength",
};

/** Fields without a counterpart, and the values at which they change nothing. Any value will do where none is named. */
const neutral: Readonly<Record<string, readonly unknown[]>> = {
  styles: [[]],
  subseed: [-1],
  subseed_strength: [0],
  seed_resize_from_h: [-1, 0],
  seed_resize_from_w: [-1, 0],
  scheduler: ["Automatic", "automatic", ""],
  restore_faces: [false],
  tiling: [false],
  do_not_save_samples: [],
  do_not_save_grid: [],
  save_images: [false],
  s_min_uncond: [0],
  s_churn: [0],
  s_tmax: [],
  s_tmin: [0],
  s_noise: [1],
  refiner_checkpoint: [""],
  refiner_switch_at: [],
  disable_extra_networks: [false],
  comments: [{}],
  enable_hr: [false],
  firstphase_width: [0],
  firstphase_height: [0],
  hr_scale: [],
  hr_upscaler: [],
  hr_second_pass_steps: [],
  hr_resize_x: [],
  hr_resize_y: [],
  hr_checkpoint_name: [],
  hr_sampler_name: [],
  hr_scheduler: [],
  hr_prompt: [],
  hr_negative_prompt: [],
  script_name: [""],
  script_args: [[]],
  alwayson_scripts: [{}],
  override_settings_restore_afterwards: [],
  include_init_images: [false],
  resize_mode: [0, 1],
  image_cfg_scale: [0, 1.5],
  mask_round: [],
  inpaint_full_res_padding: [],
  inpainting_mask_invert: [0],
  initial_noise_multiplier: [1],
  force_task_id: [""],
  infotext: [""],
};

/** Fields that clients send whether or not anyone asked for them, so that they are not refused: the answer says that they did nothing. */
const warned: Readonly<Record<string, readonly unknown[]>> = {
  eta: [0],
  mask_blur: [0],
  mask_blur_x: [0],
  mask_blur_y: [0],
  inpainting_fill: [1],
  inpaint_full_res: [false, 0],
};

/** Previews of a job, of which the last is shown as its progress. */
const PREVIEWS = 20;

export function webUiRoutes(services: Services): Hono {
  const { catalogue, jobs } = services;
  const app = new Hono();
  /** The model that requests of this interface draw with; clients set it as an option. */
  let checkpoint: string | undefined;
  /** Jobs of this interface that are not over, the oldest first. */
  const open = new Set<string>();

  const draw = async (c: Context, isFromImage: boolean) => {
    const fields = withoutNulls(await jsonBody(c));
    const { warnings, ...request } = asked(fields, isFromImage, checkpoint);
    const draft = await draftOf(
      { ...request, fits: true, attached: true },
      catalogue,
      services.limits,
    );
    const { record } = await jobs.submit(draft);
    open.add(record.id);
    try {
      await jobs.ended(record.id, c.req.raw.signal);
      return c.json(await drawn(await jobs.drawing(record.id), services, fields, warnings));
    } finally {
      open.delete(record.id);
    }
  };
  app.post("/sdapi/v1/txt2img", (c) => draw(c, false));
  app.post("/sdapi/v1/img2img", (c) => draw(c, true));
  app.get("/sdapi/v1/progress", async (c) => {
    const entries = await Promise.all([...open].map((id) => jobs.get(id)));
    const current = entries.find(({ record }) => record.state === "running");
    return c.json(
      await progressOf(current, entries.length, c.req.query("skip_current_image") === "true"),
    );
  });
  app.post("/sdapi/v1/interrupt", async (c) => {
    await Promise.all([...open].map((id) => jobs.cancel(id).catch(() => undefined)));
    return c.json({});
  });
  app.get("/sdapi/v1/sd-models", (c) =>
    c.json(
      catalogue.models.map(({ name }) => ({
        title: name,
        model_name: name,
        hash: null,
        sha256: null,
        filename: name,
        config: null,
      })),
    ),
  );
  app.get("/sdapi/v1/samplers", (c) =>
    c.json(
      Object.entries(samplerNames).map(([name, own]) => ({ name, aliases: [own], options: {} })),
    ),
  );
  app.get("/sdapi/v1/options", (c) =>
    c.json({ sd_model_checkpoint: catalogue.model(checkpoint).name, samples_format: "png" }),
  );
  app.post("/sdapi/v1/options", async (c) => {
    const { sd_model_checkpoint: name, ...rest } = await jsonBody(c);
    const [other] = Object.keys(rest);
    if (other !== undefined) {
      throw new Problem(422, `There is no option ${quote(other)} here; give sd_model_checkpoint.`);
    }
    if (name !== undefined) checkpoint = catalogue.model(textIn("sd_model_checkpoint", name)).name;
    return c.json({});
  });
  return app;
}

/** A request in our settings. @throws Problem for fields that cannot be followed */
function asked(
  given: Readonly<Record<string, unknown>>,
  isFromImage: boolean,
  checkpoint: string | undefined,
) {
  const {
    seed,
    sampler_index,
    sampler_name: sampler = sampler_index,
    batch_size = 1,
    n_iter = 1,
    init_images: images,
    mask,
    override_settings: overrides = {},
    send_images: _,
    ...rest
  } = given;
  const settings: Record<string, unknown> = {};
  const warnings: string[] = [];
  for (const [name, value] of Object.entries(rest)) {
    const own = Object.hasOwn(renamed, name) ? renamed[name] : undefined;
    // Clients send a strength without an image, too.
    if (own === "strength" && !isFromImage) continue;
    if (own !== undefined) settings[own] = value;
    else if (!Object.hasOwn(warned, name)) checkNeutral(name, value);
    else if (!isAmong(warned[name]!, value) && (mask !== undefined || name === "eta")) {
      warnings.push(`${name} has no counterpart here and did nothing.`);
    }
  }
  if (sampler !== undefined) settings["sampler"] = samplerOf(textIn("sampler_name", sampler));
  // Their way of asking for a random one.
  if (seed !== undefined && seed !== -1) settings["seed"] = seed;
  // An empty text is their way of giving none.
  if (settings["negativePrompt"] === "") delete settings["negativePrompt"];
  const image = isFromImage ? firstOf(images) : undefined;
  const { sd_model_checkpoint: model = checkpoint, ...others } = overrides as Record<
    string,
    unknown
  >;
  for (const name of Object.keys(others)) {
    throw new Problem(422, `override_settings has ${quote(name)}, which has no counterpart here.`);
  }
  return {
    fields: {
      ...settings,
      count: Number(batch_size) * Number(n_iter),
      previews: PREVIEWS,
      ...(model !== undefined && { model }),
    },
    files: { image: pictureBytes(image, "init_images"), mask: pictureBytes(mask, "mask") },
    warnings,
  };
}

function textIn(param: string, value: unknown): string {
  if (typeof value === "string") return value;
  throw new Problem(422, `${param} must be a text.`, { param });
}

function checkNeutral(name: string, value: unknown): void {
  const values = Object.hasOwn(neutral, name) ? neutral[name] : undefined;
  if (values === undefined) {
    throw new Problem(422, `There is no field ${quote(name)} in this interface; leave it out.`, {
      param: name,
    });
  }
  if (values.length === 0 || isAmong(values, value)) return;
  throw new Problem(
    422,
    `${name} has no counterpart here; leave it out, or give ${values.map((each) => JSON.stringify(each)).join(" or ")}.`,
    { param: name },
  );
}

function isAmong(values: readonly unknown[], value: unknown): boolean {
  const text = JSON.stringify(value);
  return values.some((each) => JSON.stringify(each) === text);
}

function samplerOf(name: string): string {
  return Object.hasOwn(samplerNames, name) ? samplerNames[name]! : name;
}

function firstOf(images: unknown): unknown {
  if (Array.isArray(images) && images.length === 1) return images[0];
  throw new Problem(422, "init_images must hold one picture.", { param: "init_images" });
}

async function drawn(
  entry: Entry<DrawRecord>,
  { jobs, version }: Services,
  parameters: object,
  warnings: readonly string[],
): Promise<object> {
  const { record, log } = entry;
  const { settings, pictures, state, error, model } = record;
  if (state === "failed") throw new Problem(500, error!);
  const files: string[] = [];
  for (const { file } of pictures) {
    files.push(Buffer.from(await jobs.read(entry, file)).toString("base64"));
  }
  // An interrupted drawing answers with what there is, as that web UI does.
  const images = state === "cancelled" ? ((await log.preview())?.pictures ?? []) : files;
  const seeds = pictures.map(({ seed }) => seed);
  const { prompt, negativePrompt, steps, sampler, guidance, width, height, strength } = settings;
  const info = {
    prompt,
    all_prompts: seeds.map(() => prompt),
    negative_prompt: negativePrompt ?? "",
    seed: settings.seed,
    all_seeds: seeds,
    width,
    height,
    sampler_name: sampler,
    cfg_scale: guidance,
    steps,
    batch_size: settings.count,
    sd_model_name: model,
    denoising_strength: strength ?? null,
    infotexts: seeds.map((seed) =>
      parametersText({ ...recordedSettings(settings, seed), model, version }),
    ),
    extra_generation_params: {},
    interrupted: state === "cancelled",
    warnings: [...settings.warnings, ...warnings],
  };
  return {
    images,
    parameters: { ...parameters, init_images: null, mask: null },
    info: JSON.stringify(info),
  };
}

async function progressOf(
  current: Entry | undefined,
  count: number,
  skipImage: boolean,
): Promise<object> {
  const { step = 0, steps = 0 } = current ?? {};
  const progress = steps === 0 ? 0 : step / steps;
  const elapsed = current ? (Date.now() - current.record.started!) / 1000 : 0;
  return {
    progress,
    eta_relative: progress === 0 ? 0 : elapsed / progress - elapsed,
    state: {
      skipped: false,
      interrupted: false,
      job: current?.record.id ?? "",
      job_count: count,
      job_timestamp: String(current?.record.started ?? 0),
      job_no: 0,
      sampling_step: step,
      sampling_steps: steps,
    },
    current_image: skipImage ? null : ((await current?.log.preview())?.pictures[0] ?? null),
    textinfo: null,
  };
}
