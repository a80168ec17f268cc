import { describe, expect, it } from "vitest";
import { diffusersScheduler } from "../../src/diffusion/diffusers/schedulers.ts";
import { exponentialRatios, variancePreserving } from "../../src/diffusion/levels.ts";
import { ddim } from "../../src/diffusion/samplers/ddim.ts";
import { finalImages } from "../../src/diffusion/samplers/sampler.ts";
import { unipc } from "../../src/diffusion/samplers/unipc.ts";
import { FormatError } from "../../src/engine/errors.ts";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { mixtureDenoiser } from "../support/gaussian-mixture.ts";

const scheduler = (name: string, fields: Readonly<Record<string, unknown>>) =>
  diffusersScheduler(name, fieldReader("scheduler_config.json", fields));

describe("trained_betas", () => {
  const betas = [0.1, 0.2, 0.3, 0.4];

  it("replace the schedule", () => {
    const ddpm = scheduler("DDPMScheduler", { num_train_timesteps: 4, trained_betas: betas });
    let alphaBar = 1;
    const alphas = betas.map((beta) => Math.sqrt((alphaBar *= 1 - beta)));
    const got = ddpm.levels(4).map(({ alpha }) => alpha);
    for (const [i, alpha] of [...alphas.toReversed(), 1].entries()) {
      expect(got[i]).toBeCloseTo(alpha, 6);
    }
  });

  it("must have one for each step", () => {
    const wrong = () => scheduler("DDIMScheduler", { trained_betas: betas });
    expect(wrong).toThrow(FormatError);
    expect(wrong).toThrow("4 trained_betas for 1000 steps");
  });
});

describe("UniPC without its corrector", () => {
  const denoise = mixtureDenoiser([
    { weight: 0.3, mean: -1.2, std: 0.3 },
    { weight: 0.7, mean: 0.8, std: 0.5 },
  ]);
  const x = ndarray("float64", [3, 1], [-2, 0.5, 1.5]);
  const levels = exponentialRatios(9, 20, 0.1).map((ratio) => variancePreserving(ratio, ratio));
  const all = Array.from(levels, (_, i) => i);

  it("is DDIM at order 1", async () => {
    const plain = toNumbers(await finalImages(ddim(denoise, x, levels)));
    const options = { order: 1, uncorrected: all };
    const got = toNumbers(await finalImages(unipc(denoise, x, levels, options)));
    for (const [i, value] of plain.entries()) expect(got[i]).toBeCloseTo(value, 10);
    const corrected = toNumbers(await finalImages(unipc(denoise, x, levels, { order: 1 })));
    expect(Math.abs(corrected[0]! - plain[0]!)).toBeGreaterThan(1e-4);
  });

  it("is used for the steps of disable_corrector", async () => {
    const fields = { disable_corrector: all, solver_order: 1 };
    const { sampler } = scheduler("UniPCMultistepScheduler", fields);
    const got = toNumbers(await finalImages(sampler(denoise, x, levels)));
    const plain = toNumbers(await finalImages(ddim(denoise, x, levels)));
    for (const [i, value] of plain.entries()) expect(got[i]).toBeCloseTo(value, 10);
  });
});
