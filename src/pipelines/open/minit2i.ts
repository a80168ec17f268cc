/**
 * MiniT2I as a model of its parts: flan-t5 reads a prompt with its padding masked, the part of the network that reads the text
 * alone runs once a prompt, and the pixels need no decoder.
 */
import type { Conditions } from "../../diffusion/denoiser.ts";
import { timesInside } from "../../diffusion/levels.ts";
import { rowsOf } from "../../diffusion/arrays.ts";
import { recipeLevels } from "../../diffusion/recipe.ts";
import { zeros } from "../../engine/arrays/ndarray.ts";
import { FormatError, UsageError } from "../../engine/errors.ts";
import {
  miniT2IMeanFlowDefaults,
  miniT2IMeanFlowRecipe,
  miniT2IRecipe,
} from "../../models/minit2i/family.ts";
import { isMeanFlow } from "../../models/network.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { type FieldReader, fieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { type ImageModel, textGraph, type Stage } from "../image-model.ts";
import { continuousProcess, recipeProcess, type SamplingProcess } from "../process.ts";
import type { OpenModelOptions } from "./options.ts";
import { type OpenTextEncoders, type TextEncoderTable, textEncoding } from "./text-encoders.ts";

export const miniT2ITextEncoders = {
  t5: {
    title: "T5",
    kind: "t5",
    reader: "T5",
    folder: "text_encoder",
    tokenizer: "tokenizer",
    prefix: "text_encoders.t5.transformer.",
    isAlone: ({ entries }: Weights) =>
      [...entries.keys()].some((key) => key.startsWith("encoder.block.")),
    masked: true,
  },
} satisfies TextEncoderTable;

/**
 * The process and the defaults of a folder.
 *
 * @param transformer fields of its config.json, which also says in which times it is guided
 * @throws FormatError if the scheduler is another
 */
export function miniT2IProcess(
  transformer: FieldReader,
  scheduler: FieldReader,
): { readonly process: SamplingProcess; readonly defaults: ImageModel["defaults"] } {
  const name = scheduler.text("_class_name", "MiniT2IFlowMatchScheduler");
  if (name !== "MiniT2IFlowMatchScheduler") {
    throw new FormatError(
      `${scheduler.file} describes a ${name}, but MiniT2I is drawn by a MiniT2IFlowMatchScheduler; download the whole folder again.`,
    );
  }
  const [first = 0, last = 1] = transformer.numbers("cfg_interval", [0, 1]);
  const { above, upTo } = timesInside(1 - last, 1 - first);
  return {
    process: continuousProcess({
      parameterization: miniT2IRecipe.predicts,
      sampler: "euler",
      levels: (steps, options) => recipeLevels(miniT2IRecipe, steps, options),
      noiseScale: miniT2IRecipe.noiseScale,
      lowestTime: miniT2IRecipe.weighting.lowestSigma,
    }),
    defaults: {
      steps: scheduler.count("num_inference_steps", 100),
      guidance: 6,
      ...((first > 0 || last < 1) && { guidedBetween: [above, upTo] as const }),
    },
  };
}

/** The process and the defaults of a network's file, of the kind that goes through noise in small steps or of a mean flow. */
export function miniT2IFileDrawing(
  file: string,
  network: ImageModel["network"],
): Pick<ImageModel, "process" | "defaults"> {
  return isMeanFlow(network)
    ? { process: recipeProcess(miniT2IMeanFlowRecipe, "euler"), defaults: miniT2IMeanFlowDefaults }
    : miniT2IProcess(fieldReader(file, {}), fieldReader(file, {}));
}

/**
 * Adds the text encoder to the other parts.
 *
 * @throws FormatError if the folder lacks it, or it does not fit the network; UsageError if `promptTokens` is another number than its own
 */
export function miniT2IModel(
  parts: ImageModel,
  encoders: OpenTextEncoders,
  tokenizers: Readonly<Record<string, Tokenizer>>,
  { promptTokens }: OpenModelOptions = {},
): ImageModel {
  const { name, network, weights } = parts;
  const { condition } = network;
  const { t5: encoder } = encoders;
  if (condition.kind !== "text" || !encoder) {
    throw new FormatError(
      `${name} lacks its text encoder; put that of google/flan-t5-large into its folders text_encoder and tokenizer.`,
    );
  }
  if (encoder.width !== condition.width) {
    throw new FormatError(
      `The network takes tokens of width ${condition.width}, but the text encoder gives ${encoder.width}; give the one that belongs to it.`,
    );
  }
  const { length } = condition;
  if (promptTokens !== undefined && promptTokens !== length) {
    throw new UsageError(
      `--prompt-tokens (promptTokens) is ${promptTokens}, but ${name} reads ${length} tokens of a prompt, as in its training; leave it out.`,
    );
  }
  const reading = textEncoding(
    {
      t5: {
        row: miniT2ITextEncoders.t5,
        encoder,
        tokenizer: tokenizers["t5"]!,
        tokens: length,
        outputs: { hidden: "hidden" },
      },
    },
    ({ t5 }, texts) =>
      Array.from({ length: texts }, (_, row): Conditions => ({
        y: rowsOf(t5!["hidden"]!, row, 1),
        mask: rowsOf(t5!["mask"]!, row, 1),
      })),
  );
  // No text is no token at all: the network has a token of its own for that.
  const masked = (given: Conditions, text: string): Conditions =>
    text === "" ? { ...given, mask: zeros("bool", [1, length]) } : given;
  // The text of a mean flow is read together with the step, so that none of its part can run once a prompt.
  if (isMeanFlow(network)) {
    const encode: typeof reading.encode = async (texts, run) => {
      const read = await reading.encode(texts, run);
      return read.map((given, i) => masked(given, texts[i]!));
    };
    return { ...parts, encoder: { ...reading, encode } };
  }
  const alone: Stage = {
    name: "the text's part of the network",
    kind: "text encoder",
    graph: () => textGraph(network),
    weights,
  };
  return {
    ...parts,
    encoder: {
      ...reading,
      stages: [...reading.stages, alone],
      async encode(texts, run) {
        const read = await reading.encode(texts, run);
        const made: Conditions[] = [];
        for (const [i, given] of read.entries()) {
          made.push(await run(alone, masked(given, texts[i]!)));
        }
        return made;
      },
    },
  };
}
