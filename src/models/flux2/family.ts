/** FLUX.2 as a model family. */
import { rectifiedFlow } from "../../diffusion/recipe.ts";
import { flux2Mu } from "../../diffusion/resolution-shift.ts";
import { axesOf, patchCount, unpatchify } from "../../nn/patches.ts";
import { givenCondition } from "../../nn/conditioning.ts";
import { isLastModulation } from "../stream-checkpoints.ts";
import { manyRows, type NetworkFamily } from "../family.ts";
import {
  diffusersFlux2Config,
  diffusersFlux2Keys,
  diffusersFlux2Weights,
  flux2CheckpointConfig,
  flux2Config,
  isFlux2,
} from "./checkpoint.ts";
import { checkFlux2, type Flux2Config, flux2Presets, flux2Schema } from "./config.ts";
import { flux2, flux2Tokens, imagePlaces, textPlaces } from "./flux2.ts";

export const flux2Family: NetworkFamily<Flux2Config> = {
  kind: "flux2",
  title: "FLUX.2",
  schema: flux2Schema,
  check: checkFlux2,
  presets: flux2Presets,
  trace: (p, { x, t, y, guidance, references }, config, options) => {
    const text = givenCondition(y, config.condition, "FLUX.2");
    return flux2(p, { x, t, y: text, guidance, references }, config, options);
  },
  guidanceInput: ({ guidance }) => guidance,
  attendsToPadding: true,
  // As encode_image_refs of the original code.
  references: { pixels: (count) => (count > 1 ? 1024 : 2048) ** 2, leastSide: 64, aspect: 8 },
  sizes: () => ({ unit: 1, fixed: false }),
  patches: (_, [height, width]) => height * width,
  original: {
    architecture: "flux",
    recognises: isFlux2,
    open(weights) {
      const config = flux2CheckpointConfig(weights);
      return {
        config,
        recipe: rectifiedFlow(1),
        // As cli.py of the original code; klein was distilled to 4 steps without guidance.
        sampling: config.guidance
          ? { sampler: "euler", steps: 50, guidance: 4, mu: flux2Mu }
          : { sampler: "euler", steps: 4, guidance: 1, mu: flux2Mu },
        ...(config.guidance && {
          missing: `${weights.name} takes texts as hidden states of Mistral, which cannot be opened; give a FLUX.2 [klein], which reads Qwen3.`,
        }),
      };
    },
  },
  diffusers: {
    className: "Flux2Transformer2DModel",
    config: diffusersFlux2Config,
    keys: diffusersFlux2Keys,
    weights: diffusersFlux2Weights,
    swapsHalves: isLastModulation,
    namesLora: true,
  },
  recordedCases: {
    name: "flux2",
    config: flux2Config,
    trace(p, recorded, config) {
      const x = recorded.required("latent");
      const references = recorded.numbered("ref_latent");
      const [t, y] = [recorded.required("timesteps").mul(1000), recorded.required("ctx")];
      const guidance = recorded.optional("guidance");
      const tokens = flux2Tokens(p, { x, t, y, guidance, references }, config);
      const grids = [x, ...references].map(axesOf);
      const image = tokens.slice(1, 0, patchCount(grids[0]!));
      return {
        outputs: { tokens, pred: unpatchify(image, grids[0]!, 1, "channels-first") },
        judged: [tokens],
        own: {
          x_ids: manyRows(x.size(0), imagePlaces(grids)),
          ctx_ids: manyRows(x.size(0), textPlaces(y.size(1))),
        },
      };
    },
  },
};
