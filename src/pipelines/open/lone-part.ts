/** Text encoders and autoencoders in files of their own, which can be counted but draw nothing by themselves. */
import type { WeightSource } from "../../engine/runtime/backend.ts";
import { autoencoderIn } from "../../models/coders/autoencoder-kl-checkpoint.ts";
import type { CountedPreset } from "../../models/family.ts";
import { clipTextIn } from "../../models/text-encoders/clip-text.ts";
import { qwen3In } from "../../models/text-encoders/qwen3.ts";
import { t5EncoderIn } from "../../models/text-encoders/t5-encoder.ts";
import { withoutLlamaNames } from "../../weights/gguf/llama-names.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { countedAutoencoder, countedClip, countedQwen3, countedT5 } from "../counted-presets.ts";

export interface LonePart extends CountedPreset {
  readonly weights: WeightSource;
}

interface PartKind {
  /** The name that messages use, with its article. */
  readonly title: string;
  /** How it is given beside the file of a network. */
  readonly option: string;
  /** A key that every such file has. */
  readonly key: RegExp;
  /** @throws FormatError if keys or shapes do not fit each other */
  open(file: Weights): LonePart;
}

const encoders = "--text-encoders (textEncoders)";
const clipTable = "text_model.embeddings.token_embedding.weight";

/** One row for each architecture. */
const partKinds: readonly PartKind[] = [
  {
    title: "a T5 encoder",
    option: encoders,
    key: /^encoder\.block\.0\.layer\.0\.SelfAttention\.q\.weight$/,
    open(file) {
      const { config, weights } = t5EncoderIn(file);
      return { ...countedT5(config), weights };
    },
  },
  {
    title: "a CLIP text encoder",
    option: encoders,
    key: /^text_model\.embeddings\.token_embedding\.weight$/,
    open(file) {
      const wide = file.entries.get(clipTable)!.shape[1] === 1280;
      const { config, weights } = clipTextIn(file, wide ? "CLIP-G" : "CLIP-L");
      return { ...countedClip(config), weights };
    },
  },
  {
    title: "a Qwen3 text encoder",
    option: encoders,
    key: /^(model\.)?layers\.0\.self_attn\.q_norm\.weight$/,
    open(file) {
      const { config, weights } = qwen3In(file, [-1]);
      return { ...countedQwen3(config), weights };
    },
  },
  {
    title: "an autoencoder",
    option: "--vae (vae)",
    key: /^decoder\.(mid\.block_1|mid_block\.resnets\.0)\.norm1\.weight$/,
    open(file) {
      const { config, weights } = autoencoderIn(file);
      return { ...countedAutoencoder(config), weights };
    },
  },
];

function kindOf({ entries }: Pick<Weights, "entries">): PartKind | undefined {
  const names = [...entries.keys()];
  return partKinds.find(({ key }) => names.some((name) => key.test(name)));
}

/**
 * The text encoder or the autoencoder that a file is; undefined if it is none.
 *
 * @throws FormatError if its keys or shapes do not fit each other
 */
export function lonePart(given: Weights): LonePart | undefined {
  const file = withoutLlamaNames(given);
  return kindOf(file)?.open(file);
}

/** Describes a file of a text encoder or an autoencoder and the option that takes it; undefined for any other file. */
export function partTitle(file: Weights): Pick<PartKind, "title" | "option"> | undefined {
  return kindOf(withoutLlamaNames(file));
}
