/**
 * The schedules of FLUX.1, FLUX.2 and Z-Image on an analytic velocity: `out.MODEL.mu`; `out.MODEL.LN.sS.…` for N tokens and S
 * steps, `noshift` and `shiftX` in place of `LN`; `out.diffusers.NAME.sS.…` for diffusers' scheduler; and guidance.
 */
import { combine, mapElements } from "../diffusion/arrays.ts";
import { denoiserOf, type Network } from "../diffusion/denoiser.ts";
import { diffusersScheduler } from "../diffusion/diffusers/schedulers.ts";
import { combinedBy, limitedTo } from "../diffusion/guidance.ts";
import { flowLevels, type NoiseLevel } from "../diffusion/levels.ts";
import { flux2Mu, fluxMu } from "../diffusion/resolution-shift.ts";
import { euler } from "../diffusion/samplers/ddim.ts";
import { type NdArray, ndarray, toNumbers } from "../engine/arrays/ndarray.ts";
import type { FieldReader } from "../weights/config-fields.ts";
import type { Tolerance } from "./compare.ts";
import type { Computed } from "./family.ts";
import { largest, recordedFields } from "./network.ts";
import type { Recording } from "./recording.ts";
import { listed, listedSigmas, stacked } from "./scheduler-run.ts";

const mus = { flux1: fluxMu, flux2: flux2Mu } as const;

/** The recorded velocity, 0.3·x·cos(σ) + 0.2·sin(5σ). */
const network: Network = async (x, { sigma }) =>
  mapElements((value) => 0.3 * value * Math.cos(sigma) + 0.2 * Math.sin(5 * sigma), x);

export async function* fluxSampling(recording: Recording): AsyncGenerator<Computed> {
  const { io } = recording;
  const args = recordedFields(recording).object("args");
  for (const name of io.entries.keys()) {
    if (name.startsWith("in.")) continue;
    const want = await io.read(name);
    const got = await computed(name, want, recording, args);
    if (got) yield { name, want, ...got };
  }
}

type Got = { readonly got: NdArray; readonly tolerance: Tolerance };

async function computed(
  name: string,
  want: NdArray,
  { io }: Recording,
  args: FieldReader,
): Promise<Got | undefined> {
  const [, model] = /^out\.(flux1|flux2)\.mu$/.exec(name) ?? [];
  if (model !== undefined) {
    const [tokens, steps] = [await io.read("in.seq_lens"), await io.read("in.steps")];
    return { got: muTable(model as keyof typeof mus, tokens, steps), tolerance: { rtol: 1e-6 } };
  }
  const trajectories = { atol: 5e-5 * Math.max(1, largest(want)) };
  const [, family, limit] = /^out\.(klein|z_image)\.cfg(?:_norm([\d.]+))?$/.exec(name) ?? [];
  if (family !== undefined) {
    const [positive, negative] = [await io.read("in.pos"), await io.read("in.neg")];
    // Z-Image counts its scale from 0.
    const scale = args.number("cfg_scale") + (family === "z_image" ? 1 : 0);
    const guided = combinedBy(scale, positive, negative);
    const got = limit === undefined ? guided : limitedTo(Number(limit), guided, positive);
    return { got, tolerance: trajectories };
  }
  const [, which, steps, what] = /^out\.(.+)\.s(\d+)\.(\w+)$/.exec(name) ?? [];
  const levels = which === undefined ? undefined : levelsOf(which, Number(steps), args);
  if (!levels) return undefined;
  switch (what) {
    case "sigmas":
      return { got: listedSigmas(levels, true), tolerance: { atol: 2e-6 } };
    case "timesteps": {
      const times = levels.slice(0, -1).map(({ time }) => time);
      return { got: listed(times, want), tolerance: { atol: 2e-3 } };
    }
    case "model_t": {
      // What the original network is told: the share of the image.
      const shares = levels.slice(0, -1).map(({ sigma }) => 1 - sigma);
      return { got: listed(shares, want), tolerance: { atol: 2e-6 } };
    }
    case "traj":
      return { got: await trajectory(levels, await io.read("in.x")), tolerance: trajectories };
    default:
      return undefined;
  }
}

/** μ by tokens, and by steps too where it depends on them. */
function muTable(model: keyof typeof mus, tokens: NdArray, steps: NdArray): NdArray {
  const [lengths, counts] = [toNumbers(tokens), toNumbers(steps)];
  const mu = mus[model];
  return model === "flux1"
    ? ndarray(
        "float64",
        [lengths.length],
        lengths.map((length) => mu(length, 1)),
      )
    : ndarray(
        "float64",
        [lengths.length, counts.length],
        lengths.flatMap((length) => counts.map((count) => mu(length, count))),
      );
}

function levelsOf(
  which: string,
  steps: number,
  args: FieldReader,
): readonly NoiseLevel[] | undefined {
  const [, model, tokens] = /^(flux1|flux2)\.L(\d+)$/.exec(which) ?? [];
  if (model !== undefined) {
    const mu = mus[model as keyof typeof mus](Number(tokens), steps);
    return flowLevels(steps, { shift: Math.exp(mu) });
  }
  if (which === "flux1.noshift") return flowLevels(steps);
  const [, shift] = /^z_image\.shift([\d.]+)$/.exec(which) ?? [];
  if (shift !== undefined) return flowLevels(steps, { shift: Number(shift) });
  const [, name] = /^diffusers\.(\w+)$/.exec(which) ?? [];
  if (name === undefined) return undefined;
  const config = args.object("diffusers").object(name);
  const set = config.object("set_timesteps");
  return diffusersScheduler(config.text("scheduler"), config.object("args")).levels(steps, {
    mu: set.has("mu") ? set.number("mu") : undefined,
    evenSigmas: set.flag("pipeline_sigmas", false),
  });
}

async function trajectory(levels: readonly NoiseLevel[], x: NdArray): Promise<NdArray> {
  const states: NdArray[] = [combine([1, x])];
  for await (const { x: next } of euler(denoiserOf(network, "flow"), states[0]!, levels)) {
    states.push(next);
  }
  return stacked(states);
}
