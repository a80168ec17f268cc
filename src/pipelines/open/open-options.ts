/** What may be given beside a model, and to which models it means something. */
import { UsageError } from "../../engine/errors.ts";

export interface OpenModelOptions {
  /** Stable Diffusion's autoencoder, a folder or a file, for models of latents that bring none, or in place of their own. */
  readonly vae?: string | undefined;
  /** Text encoders for models that bring none: files, or folders that hold them. */
  readonly textEncoders?: readonly string[] | undefined;
  /** A folder that holds the folders of tokenizers, for models that bring none. */
  readonly tokenizers?: string | undefined;
  /** Text encoders to do without: clip-l, clip-g, t5. */
  readonly without?: readonly string[] | undefined;
  /** Tokens that T5 reads of a prompt: 256 for diffusers' folders and 77 for single files, as in their origins. */
  readonly promptTokens?: number | undefined;
}

const flags: { readonly [K in keyof Required<OpenModelOptions>]: string } = {
  vae: "--vae",
  textEncoders: "--text-encoders",
  tokenizers: "--tokenizers",
  without: "--without",
  promptTokens: "--prompt-tokens",
};

/** @throws UsageError when an option is given that is none of those which mean something to the model */
export function refuseOptions(
  model: string,
  options: OpenModelOptions,
  known: readonly (keyof OpenModelOptions)[],
): void {
  for (const [name, flag] of Object.entries(flags) as [keyof OpenModelOptions, string][]) {
    if (options[name] === undefined || known.includes(name)) continue;
    throw new UsageError(
      `${model} has no use for ${flag} (${name}), which only ${name === "vae" ? "models of latents without an autoencoder of their own" : "Stable Diffusion 3"} can take; leave it out.`,
    );
  }
}
