/** What can be given beside a model's name, one row each. The command line's options and their help follow from the rows. */
import { UsageError } from "../../engine/errors.ts";
import { kinds, type OptionKinds } from "../../engine/options.ts";

interface OpenOption {
  /** As commander takes it. */
  readonly flag: string;
  readonly help: string;
  readonly isNumber?: boolean;
  /** The models that can take it, as messages name them. */
  readonly models: string;
}

export interface OpenModelOptions {
  /**
   * Stable Diffusion's autoencoder, a folder or a file, for models of latents that have none, or in place of their own.
   */
  readonly vae?: string | undefined;
  /** Text encoders for models that have none: files, or folders that hold them. */
  readonly textEncoders?: readonly string[] | undefined;
  /** A folder that holds the tokenizers' folders, for models that have none. */
  readonly tokenizers?: string | undefined;
  /** Names of text encoders to leave out: clip-l, clip-g, t5. */
  readonly without?: readonly string[] | undefined;
  /** Tokens of a prompt that T5 reads: 256 for diffusers' folders and 77 for single files, as in the original code. */
  readonly promptTokens?: number | undefined;
  /** Attention heads of a DiT in a single file, which no shape shows. */
  readonly heads?: number | undefined;
}

const sd3 = "Stable Diffusion 3";
const single = "single files of Stable Diffusion 3, FLUX, Z-Image and MiniT2I";

export const openOptions: { readonly [K in keyof Required<OpenModelOptions>]: OpenOption } = {
  vae: {
    flag: "--vae <dir|file>",
    help: "Stable Diffusion's autoencoder, for models of latents without one",
    models: "models of latents without an autoencoder",
  },
  textEncoders: {
    flag: "--text-encoders <dir|file...>",
    help: "text encoders for a single file without them: files, or a folder of them",
    models: single,
  },
  tokenizers: {
    flag: "--tokenizers <dir>",
    help: "a folder with the tokenizers' folders: tokenizer, tokenizer_2, tokenizer_3",
    models: single,
  },
  without: {
    flag: "--without <encoder...>",
    help: "text encoders to leave out: clip-l, clip-g, t5",
    models: sd3,
  },
  promptTokens: {
    flag: "--prompt-tokens <n>",
    help: "tokens of a prompt that T5 or Qwen3 reads (default: the model's own)",
    isNumber: true,
    models: "models that read prompts with T5 or Qwen3",
  },
  heads: {
    flag: "--heads <n>",
    help: "attention heads of a DiT in a single file, which no shape shows",
    isNumber: true,
    models: "a DiT in a single file",
  },
};

/** The kinds of these options. */
export const openKinds: OptionKinds<OpenModelOptions> = {
  vae: kinds.text,
  textEncoders: kinds.texts,
  tokenizers: kinds.text,
  without: kinds.texts,
  promptTokens: kinds.count,
  heads: kinds.count,
};

/** @throws UsageError if an option is given that the model cannot take */
export function refuseOptions(
  model: string,
  options: OpenModelOptions,
  known: readonly (keyof OpenModelOptions)[],
): void {
  for (const name of Object.keys(openOptions) as (keyof OpenModelOptions)[]) {
    if (options[name] === undefined || known.includes(name)) continue;
    const { flag, models } = openOptions[name];
    throw new UsageError(
      `${flag.split(" ")[0]} (${name}) does not apply to ${model}, only to ${models}; leave it out.`,
    );
  }
}
