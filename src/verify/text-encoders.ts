/**
 * Text encoders of Stability-AI/sd3.5. Recordings of CLIP have the outputs of the last two layers for `in.tokens`, the pooled
 * texts, and the outputs of its wrapper. Those of T5 have `out.NAME.last_hidden_state` for each `in.NAME.tokens`, and
 * `out.bucket_row0`, the buckets of offsets symmetric about 0.
 */
import { ndarray } from "../engine/arrays/ndarray.ts";
import { clipText, clipTextConfig } from "../models/text-encoders/clip-text.ts";
import {
  distanceBucket,
  t5Encoder,
  t5EncoderKeys,
  t5EncoderPresets,
} from "../models/text-encoders/t5-encoder.ts";
import { createParams } from "../nn/params.ts";
import { fieldReader } from "../weights/config-fields.ts";
import type { Family } from "./family.ts";
import { computeNetwork, recordedModel, requiredInput } from "./network.ts";
/** Reads the arguments of CLIPTextModel in other_impls.py. */
export const clipTextFamily: Family = (recording, backend) => {
  const { args } = recordedModel(recording);
  const width = args.count("hidden_size");
  args.ignore("dtype", "device");
  const positions = args.count("num_positions", 77);
  const { end: _, ...sizes } = clipTextConfig(args);
  args.finish("CLIPTextModel");
  const params = createParams();
  const ids = requiredInput(recording, "tokens");
  const text = clipText(params, { ids }, { ...sizes, positions, projection: width });
  // The wrapper of CLIP-L does not project.
  const { fields } = recording.model?.config ?? recording.config;
  const which = fieldReader(`${recording.name}/config.json`, fields).text("which", "CLIP-G");
  const outputs = {
    "out.last_hidden_state": text.last,
    "out.penultimate": text.penultimate,
    "out.penultimate_normed": text.penultimateNormed,
    "out.pooled": text.pooled,
    "out.pooled_projected": text.projected,
    "out.wrapper_z": text.penultimate,
    "out.wrapper_pooled": which === "CLIP-L" ? text.pooled : text.projected,
  };
  return computeNetwork(recording, backend, { params, outputs });
};

/** Reads the arguments of T5 in other_impls.py, where the heads together have the width of the model. */
export const t5EncoderFamily: Family = async function* compute(recording, backend) {
  const { args, weights } = recordedModel(recording);
  const heads = args.count("num_heads");
  const width = args.count("d_model");
  const config = {
    ...t5EncoderPresets["T5-XXL"],
    vocabulary: args.count("vocab_size", 32_128),
    width,
    depth: args.count("num_layers"),
    heads,
    headSize: width / heads,
    hidden: args.count("d_ff"),
  };
  args.ignore("dtype", "device");
  args.finish("T5");
  const { io } = recording;
  for (const name of io.entries.keys()) {
    const [, input] = /^in\.(.*)$/.exec(name) ?? [];
    if (input === undefined || !/(^|\.)tokens$/.test(input)) continue;
    const params = createParams();
    const hidden = t5Encoder(params, { ids: requiredInput(recording, input) }, config);
    const output = `out.${input.replace(/tokens$/, "last_hidden_state")}`;
    const network = { params, outputs: { [output]: hidden }, keys: t5EncoderKeys(weights) };
    yield* computeNetwork(recording, backend, network);
  }
  const buckets = "out.bucket_row0";
  const entry = io.entries.get(buckets);
  if (entry) {
    const [count = 1] = entry.shape;
    const offsets = Array.from({ length: count }, (_, i) => i - Math.floor(count / 2));
    const got = offsets.map((offset) => distanceBucket(offset, config));
    yield { name: buckets, got: ndarray("int64", [count], got), want: await io.read(buckets) };
  }
};
