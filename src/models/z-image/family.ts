/** Z-Image as a model family. */
import { rectifiedFlow } from "../../diffusion/recipe.ts";
import { ShapeError } from "../../engine/errors.ts";
import { givenCondition } from "../../nn/conditioning.ts";
import { sameKeys } from "../../weights/check-keys.ts";
import type { NetworkFamily } from "../family.ts";
import {
  isZImage,
  originalZImageWeights,
  singleFileLayer,
  zImageCheckpointConfig,
  zImageConfig,
} from "./checkpoint.ts";
import { checkZImage, type ZImageConfig, zImagePresets, zImageSchema } from "./config.ts";
import { zImage, zImageOriginal } from "./z-image.ts";

export const zImageFamily: NetworkFamily<ZImageConfig> = {
  kind: "z-image",
  title: "Z-Image",
  schema: zImageSchema,
  check: checkZImage,
  presets: zImagePresets,
  trace: (p, { x, t, y, mask }, config, options) => {
    const text = givenCondition(y, config.condition, "Z-Image");
    return zImage(p, { x, t, y: text, mask }, config, options);
  },
  autoencoder: "FLUX.1-ae",
  sizes: ({ patch, places: [, rows, columns] }) => ({
    unit: patch,
    most: Math.min(rows, columns) * patch,
    fixed: false,
  }),
  patches: ({ patch }, [height, width]) => (height / patch) * (width / patch),
  original: {
    architecture: "lumina2",
    recognises: isZImage,
    weights: originalZImageWeights,
    layerName: singleFileLayer,
    open: (weights) => ({
      config: zImageCheckpointConfig(weights),
      recipe: rectifiedFlow(3),
      // As the original code draws with the Turbo model, whose shapes are those of the base model.
      sampling: { sampler: "euler", steps: 8, guidance: 1 },
    }),
  },
  diffusers: {
    className: "ZImageTransformer2DModel",
    config: zImageConfig,
    keys: sameKeys,
    weights: (weights) => weights,
    namesLora: true,
  },
  recordedCases: {
    name: "z_image",
    config: (args, recording) => zImageConfig(args, recording.optionalCount("t_embedder_mid_size")),
    // Each row has a picture and a text of its own size, and gives what it gives alone.
    trace(p, recorded, config) {
      const times = recorded.required("t");
      const [pictures, texts] = [recorded.numbered("x"), recorded.numbered("cap")];
      const outputs = pictures.map((x, i) => {
        if (x.size(1) !== 1) {
          throw new ShapeError(
            `The recorded x${i} has ${x.size(1)} frames, but a Z-Image draws a picture; record latents of one frame, [C, 1, H, W].`,
          );
        }
        const inputs = {
          x: x.swapAxes(0, 1), // [1, C, H, W]
          share: times.slice(0, i, i + 1),
          y: texts[i]!.unsqueeze(0),
        };
        return zImageOriginal(p, inputs, config).swapAxes(0, 1);
      });
      return {
        outputs: Object.fromEntries(outputs.map((output, i) => [`y${i}`, output])),
        judged: outputs,
      };
    },
  },
};
