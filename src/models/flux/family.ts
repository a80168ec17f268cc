/** FLUX.1 as a model family. */
import { rectifiedFlow } from "../../diffusion/recipe.ts";
import { fluxMu } from "../../diffusion/resolution-shift.ts";
import { ShapeError } from "../../engine/errors.ts";
import { patchCount, patchGrid, unpatchify } from "../../nn/patches.ts";
import { isLastModulation } from "../stream-checkpoints.ts";
import { manyRows, type NetworkFamily } from "../family.ts";
import {
  diffusersFluxConfig,
  diffusersFluxKeys,
  diffusersFluxWeights,
  fluxCheckpointConfig,
  fluxConfig,
  isFlux,
  parallelParts,
} from "./checkpoint.ts";
import { checkFlux, type FluxConfig, fluxPresets, fluxSchema } from "./config.ts";
import { flux, fluxTokens, imagePlaces, textPlaces } from "./flux.ts";

export const fluxFamily: NetworkFamily<FluxConfig> = {
  kind: "flux",
  title: "FLUX.1",
  schema: fluxSchema,
  check: checkFlux,
  presets: fluxPresets,
  trace(p, { x, t, context, pooled, guidance, references }, config, options) {
    if (!context || !pooled) {
      throw new ShapeError("A FLUX.1 takes texts from encoders; give `context` and `pooled`.");
    }
    return flux(p, { x, t, context, pooled, guidance, references }, config, options);
  },
  guidanceInput: ({ guidance }) => guidance,
  autoencoder: "FLUX.1-ae",
  sizes: ({ patch }) => ({ unit: patch, fixed: false }),
  patches: ({ patch }, [height, width]) => (height / patch) * (width / patch),
  original: {
    recognises: isFlux,
    open(weights) {
      const config = fluxCheckpointConfig(weights);
      return {
        config,
        recipe: rectifiedFlow(1),
        // As cli.py of the original code: schnell in 4 steps without a shift.
        sampling: config.guidance
          ? { sampler: "euler", steps: 50, guidance: 3.5, mu: fluxMu }
          : { sampler: "euler", steps: 4, guidance: 1 },
      };
    },
  },
  diffusers: {
    className: "FluxTransformer2DModel",
    config: diffusersFluxConfig,
    keys: diffusersFluxKeys,
    weights: diffusersFluxWeights,
    swapsHalves: isLastModulation,
    parts: parallelParts,
    namesLora: true,
  },
  recordedCases: {
    name: "flux1",
    config: fluxConfig,
    trace(p, recorded, config) {
      const [x, reference] = [recorded.required("latent"), recorded.optional("ref_latent")];
      const pictures = [x, ...(reference ? [reference] : [])];
      const context = recorded.required("txt");
      const tokens = fluxTokens(
        p,
        {
          x,
          t: recorded.required("timesteps").mul(1000),
          context,
          pooled: recorded.required("y"),
          guidance: recorded.optional("guidance"),
          references: pictures.slice(1),
        },
        config,
      );
      const grids = pictures.map((each) => patchGrid(each, config.patch));
      const image = tokens.slice(1, 0, patchCount(grids[0]!));
      return {
        outputs: { tokens, pred: unpatchify(image, grids[0]!, config.patch, "channels-first") },
        judged: [tokens],
        own: {
          img_ids: manyRows(x.size(0), imagePlaces(grids)),
          txt_ids: manyRows(x.size(0), textPlaces(context.size(1))),
        },
      };
    },
  },
};
