/** The requests that clients of AUTOMATIC1111's web UI send, and the fields of the answers that they read. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readPicture } from "../../src/pictures/decode-node.ts";
import { testServer, type TestServer } from "./support.ts";

let server: TestServer;
beforeAll(async () => {
  server = await testServer({ token: "a long secret" });
});
afterAll(() => server.close());

interface Drawn {
  readonly images: string[];
  readonly info: string;
  readonly parameters: { readonly steps: number };
}

const authorization = `Basic ${Buffer.from("user:a long secret").toString("base64")}`;
async function ask<T>(path: string, body?: object): Promise<T> {
  const response = await fetch(`${server.url}/sdapi/v1/${path}`, {
    headers: { Authorization: authorization, "Content-Type": "application/json" },
    ...(body && { method: "POST", body: JSON.stringify(body) }),
  });
  const answer = (await response.json()) as T;
  if (response.ok) return answer;
  throw new Error(`${response.status} ${JSON.stringify(answer)}`);
}

/** What the client a1111-webui-api 1.9.30001 of npm sends beside the settings, each at its default. */
const defaults = {
  enable_hr: false,
  denoising_strength: 0.7,
  firstphase_width: 0,
  firstphase_height: 0,
  hr_scale: 2,
  hr_upscaler: "None",
  hr_second_pass_steps: 0,
  styles: [],
  seed: -1,
  subseed: -1,
  subseed_strength: 0,
  seed_resize_from_h: 0,
  seed_resize_from_w: 0,
  batch_size: 1,
  n_iter: 1,
  restore_faces: false,
  tiling: false,
  do_not_save_samples: false,
  do_not_save_grid: false,
  negative_prompt: "",
  override_settings: {},
  override_settings_restore_afterwards: true,
  script_args: [],
  sampler_name: "Euler a",
  eta: 1,
  s_churn: 0,
  s_tmax: 0,
  s_tmin: 0,
  s_noise: 1,
  hr_resize_x: 0,
  hr_resize_y: 0,
  hr_checkpoint_name: null,
  hr_sampler_name: null,
  hr_prompt: null,
  hr_negative_prompt: null,
  refiner_checkpoint: null,
  refiner_switch_at: 0,
  script_name: null,
  send_images: true,
  save_images: false,
  alwayson_scripts: {},
};

describe("the interface of AUTOMATIC1111's web UI", () => {
  it("draws from a prompt, and from the picture that it drew", async () => {
    const { images, info } = await ask<Drawn>("txt2img", {
      ...defaults,
      prompt: "red heart",
      steps: 2,
      cfg_scale: 1,
      width: 64,
      height: 64,
      n_iter: 2,
    });
    expect(images).toHaveLength(2);
    const { all_seeds, infotexts, warnings } = JSON.parse(info) as {
      all_seeds: number[];
      infotexts: string[];
      warnings: string[];
    };
    expect(all_seeds[1]).toBe(all_seeds[0]! + 1);
    expect(warnings).toEqual(["eta has no counterpart here and did nothing."]);
    expect(infotexts[0]).toMatch(/^red heart\nSteps: 2, Sampler: euler-ancestral, CFG scale: 1/);
    const { images: redrawn } = await ask<Drawn>("img2img", {
      ...defaults,
      resize_mode: 0,
      image_cfg_scale: 1.5,
      mask: null,
      mask_blur_x: 4,
      mask_blur_y: 4,
      mask_blur: 4,
      inpainting_fill: 0,
      inpaint_full_res: true,
      inpaint_full_res_padding: 0,
      inpainting_mask_invert: 0,
      initial_noise_multiplier: 1,
      include_init_images: false,
      prompt: "blue heart",
      init_images: [`data:image/png;base64,${images[0]}`],
      denoising_strength: 0.5,
      steps: 4,
      seed: 3,
      sampler_name: "DPM++ 2M",
    });
    const { width, height } = await readPicture(Buffer.from(redrawn[0]!, "base64"));
    expect([width, height]).toEqual([64, 64]);
  });

  it("shows progress, and interrupts", async () => {
    const drawing = ask<Drawn>("txt2img", { prompt: "a dog", steps: 1000 });
    let progress = { progress: 0, state: { sampling_step: 0, sampling_steps: 0 } };
    while (progress.state.sampling_step === 0) {
      progress = await ask("progress?skip_current_image=true");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(progress.state.sampling_steps).toBe(1000);
    expect(progress.progress).toBeLessThan(1);
    await ask("interrupt", {});
    expect(JSON.parse((await drawing).info)).toMatchObject({ interrupted: true });
    expect(await ask("progress")).toMatchObject({ progress: 0, state: { job_count: 0 } });
  });

  it("lists models and samplers, and takes the model as an option", async () => {
    expect(await ask("sd-models")).toMatchObject([{ model_name: "emoji" }]);
    expect(await ask("samplers")).toContainEqual({
      name: "Euler a",
      aliases: ["euler-ancestral"],
      options: {},
    });
    await ask("options", { sd_model_checkpoint: "emoji" });
    expect(await ask("options")).toMatchObject({ sd_model_checkpoint: "emoji" });
    await expect(ask("options", { sd_model_checkpoint: "/etc/passwd" })).rejects.toThrow(/^404/u);
  });

  it("refuses what it cannot follow, and requests without the token", async () => {
    await expect(ask("txt2img", { prompt: "a", enable_hr: true })).rejects.toThrow("enable_hr");
    await expect(ask("txt2img", { prompt: "a", mystery: 1 })).rejects.toThrow("mystery");
    const { status } = await fetch(`${server.url}/sdapi/v1/options`);
    expect(status).toBe(401);
  });
});
