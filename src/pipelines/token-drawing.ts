/** From a request to pictures by a model of discrete tokens: words → conditions → random tokens → steps → decoding. */
import { type Conditions, sharedNetwork } from "../diffusion/denoiser.ts";
import { guidedTokens, type TokenDenoiser } from "../diffusion/discrete/discrete.ts";
import { levelsOfStrength } from "../diffusion/levels.ts";
import { tokenLevel } from "../diffusion/discrete/token-recipe.ts";
import { tokenDraws, type TokenSampling } from "../diffusion/discrete/token-sampling.ts";
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { randomKey } from "../engine/random/random.ts";
import { conditionsFor } from "./conditions.ts";
import { decodePictures, type Drawing } from "./drawing.ts";
import { givenImage } from "./given-image.ts";
import type { TokenProcess } from "./image-model.ts";
import type { DrawnPicture, GenerateRequest, GenerateStep } from "./pipeline.ts";
import { type Decided, latentSize } from "./settings.ts";

export async function* drawTokenPictures(
  request: GenerateRequest,
  process: TokenProcess,
  drawing: Drawing,
): AsyncGenerator<GenerateStep, readonly DrawnPicture[]> {
  const { signal } = request;
  const decided = drawing.decideAll(request);
  const { size, seed, count, sampler, steps, strength, temperature } = decided.settings;
  const seeds = Array.from({ length: count }, (_, i) => seed + i);
  const [height, width] = latentSize(size, drawing.model);
  const schedule = process.levels(steps, { size: [height, width] });
  const levels = strength === undefined ? schedule : levelsOfStrength(schedule, steps, strength);
  const given = await givenImage(request, [count, height, width], drawing);
  const known = given && {
    tokens: given.latents as NdArray<"int64">,
    mask: given.mask,
  };
  const draws = tokenDraws(
    seeds.map((each) => randomKey(each)),
    [height, width],
  );
  const sampling: TokenSampling = {
    codebook: process.codebook,
    levels: levels.map(({ sigma }) => sigma),
    temperature,
    known,
    signal,
  };
  const decode = async (tokens: NdArray) => {
    const pictures = await decodePictures(tokens, drawing, signal);
    return given ? pictures.map(given.finish) : pictures;
  };

  const sample = process.samplerNamed(sampler);
  const denoise = await tokenDenoiser(decided, [height, width], drawing, signal);
  const running = sample(denoise, draws.noise(process.codebook), sampling, draws);
  for (;;) {
    const next = await running.next();
    if (next.done) {
      const pictures = await decode(next.value);
      return pictures.map((picture, i) => ({ ...picture, seed: seeds[i]! }));
    }
    const { step, steps: all, drawn } = next.value;
    yield { step, steps: all, preview: () => decode(drawn) };
  }
}

/** Told what to draw, and guided away from what to avoid where guidance is asked for. */
async function tokenDenoiser(
  { settings, told, avoided }: Decided,
  size: readonly [height: number, width: number],
  { model, stages, run, embed }: Drawing,
  signal: AbortSignal | undefined,
): Promise<TokenDenoiser> {
  const { guidance, count } = settings;
  const asked = guidance === 1 ? [told] : [told, avoided];
  const [wanted, free = wanted] = (await conditionsFor(asked, count, model, embed)) as [
    Conditions,
    Conditions?,
  ];
  const stage = stages.network(size);
  const network = sharedNetwork(
    async (inputs) => (await run(stage, inputs, signal ? { signal } : {}))["output"]!,
  );
  const under = (conditions: Conditions): TokenDenoiser => {
    const answer = network(conditions);
    return (tokens, share) => answer(tokens, tokenLevel(share));
  };
  return guidedTokens(under(wanted), under(free), guidance);
}
