/**
 * AutoencoderKL of diffusers, and that of SD3's own repository. Recordings of both have `out.moments`, `out.mean`, `out.logvar`
 * and `out.sample` (with `in.enc_noise`) for `in.image`, and `out.decode` for `in.z`.
 */
import {
  autoencoderKLConfig,
  type AutoencoderKLConfig,
  autoencoderKLPresets,
} from "../models/coders/autoencoder-kl-config.ts";
import {
  autoencoderKLKeys,
  autoencoderKLParams,
  decodeLatents,
  encodeImages,
  samplePosterior,
  scaleLatents,
  unscaleLatents,
} from "../models/coders/autoencoder-kl.ts";
import { prefixed } from "../engine/records.ts";
import { createParams } from "../nn/params.ts";
import type { FieldReader } from "../weights/config-fields.ts";
import { caseNames } from "./cases.ts";
import type { BackendSource, Computed, Family } from "./family.ts";
import { computeNetwork, recordedInput, recordedModel } from "./network.ts";
import type { Recording } from "./recording.ts";

/** Reads the arguments of diffusers' constructor. */
export const autoencoderKL: Family = (recording, backend) => {
  const config = autoencoderKLConfig(recordedModel(recording).args);
  return compute(recording, backend, { encoder: config, decoder: config });
};

/** Reads the arguments of VAEEncoder and VAEDecoder in sd3_impls.py, which may differ. */
export const sd3VAE: Family = (recording, backend) => {
  const { args } = recordedModel(recording);
  const [encoder, decoder] = [args.object("encoder"), args.object("decoder")];
  const configs = {
    encoder: { ...sd3Config(encoder), inputs: encoder.count("in_channels", 3) },
    decoder: { ...sd3Config(decoder), outputs: decoder.count("out_ch", 3) },
  };
  // The decoder prints its resolution and does nothing else with it.
  decoder.ignore("resolution");
  encoder.finish("VAEEncoder");
  decoder.finish("VAEDecoder");
  args.finish("SDVAE");
  return compute(recording, backend, configs);
};

/** AutoEncoder of FLUX.2's repository, with the statistics of its packed latents. */
export const flux2VAE: Family = async function* cases(recording, backend) {
  const { args } = recordedModel(recording);
  // The encoder and the decoder only print it.
  args.ignore("resolution");
  const config: AutoencoderKLConfig = {
    ...autoencoderKLPresets["FLUX.2-ae"],
    ...levelsOf(args),
    inputs: args.count("in_channels", 3),
    outputs: args.count("out_ch", 3),
  };
  args.finish("AutoEncoder");
  const params = autoencoderKLParams(config);
  const keys = autoencoderKLKeys(recordedModel(recording).weights.entries.keys(), config);
  for (const name of caseNames(recording)) {
    const [image, z] = ["image", "z"].map((each) => recordedInput(recording.io, `${name}.${each}`));
    const p = createParams();
    if (image) {
      const { moments, mean } = encodeImages(p, image, config);
      const outputs = { moments, encode: scaleLatents(p, mean, config) };
      const named = prefixed(`out.${name}.`, outputs);
      yield* computeNetwork(recording, backend, { params, outputs: named, keys });
    }
    if (z) {
      const decode = decodeLatents(p, unscaleLatents(p, z, config), config);
      const named = { [`out.${name}.decode`]: decode };
      yield* computeNetwork(recording, backend, { params, outputs: named, keys });
    }
  }
};

function sd3Config(args: FieldReader): AutoencoderKLConfig {
  args.ignore("dtype", "device");
  return { ...autoencoderKLPresets["SD3-VAE"], ...levelsOf(args) };
}

/** The sizes that the code of CompVis and its successors take. */
function levelsOf(args: FieldReader) {
  const stem = args.count("ch", 128);
  const widths = args.counts("ch_mult", [1, 2, 4, 4]).map((factor) => stem * factor);
  return {
    latentChannels: args.count("z_channels", 16),
    widths,
    stem,
    layers: args.count("num_res_blocks", 2),
    encoderAttention: widths.map(() => false),
    decoderAttention: widths.map(() => false),
  };
}

/** Runs encoder and decoder as separate programs, because their inputs may have different batch sizes. */
async function* compute(
  recording: Recording,
  backend: BackendSource,
  { encoder, decoder }: Record<"encoder" | "decoder", AutoencoderKLConfig>,
): AsyncGenerator<Computed> {
  const { io } = recording;
  const params = autoencoderKLParams(encoder, decoder);
  const keys = autoencoderKLKeys(recordedModel(recording).weights.entries.keys(), decoder);
  const [image, noise, z] = ["image", "enc_noise", "z"].map((name) => recordedInput(io, name));
  if (image) {
    const posterior = encodeImages(createParams(), image, encoder);
    const outputs = {
      "out.moments": posterior.moments,
      "out.mean": posterior.mean,
      "out.logvar": posterior.logVariance,
      ...(noise && { "out.sample": samplePosterior(posterior, noise) }),
    };
    yield* computeNetwork(recording, backend, { params, outputs, keys });
  }
  if (z) {
    const outputs = { "out.decode": decodeLatents(createParams(), z, decoder) };
    yield* computeNetwork(recording, backend, { params, outputs, keys });
  }
}
