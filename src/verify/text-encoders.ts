/**
 * Text encoders of Stability-AI/sd3.5. Recordings of CLIP have the outputs of the last two layers for `in.tokens`, the pooled
 * texts, and the outputs of its wrapper. Those of T5 have `out.NAME.last_hidden_state` for each `in.NAME.tokens` with
 * `in.NAME.mask`, where padding is masked, and `out.bucket_row0`, the buckets of offsets symmetric about 0. Those of Qwen3 have
 * chosen hidden states for each `in.NAME.input_ids`.
 */
import { ndarray } from "../engine/arrays/ndarray.ts";
import { FormatError } from "../engine/errors.ts";
import { concat, stack } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { clipText, clipTextConfig } from "../models/text-encoders/clip-text.ts";
import {
  distanceBucket,
  t5Encoder,
  t5EncoderKeys,
  t5EncoderPresets,
} from "../models/text-encoders/t5-encoder.ts";
import { qwen3, qwen3Config, qwen3Keys } from "../models/text-encoders/qwen3.ts";
import { createParams } from "../nn/params.ts";
import { type FieldReader, fieldReader } from "../weights/config-fields.ts";
import type { Family } from "./family.ts";
import {
  computeCases,
  computeNetwork,
  recordedFields,
  recordedInput,
  recordedModel,
  requiredInput,
} from "./network.ts";
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
    const mask = recordedInput(io, input.replace(/tokens$/, "mask"))?.cast("bool");
    const hidden = t5Encoder(params, { ids: requiredInput(recording, input), mask }, config);
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

/**
 * Reads the arguments of transformers' Qwen3Config. `klein_layers` lists the states that are concatenated, from the end where they
 * are negative; without it, none are. Gradients are those of the sum over cases of the mean squares of the last two states.
 */
export const qwen3Family: Family = (recording, backend) => {
  const { args, weights } = recordedModel(recording);
  const config = qwen3Config(args);
  args.ignore("attention_dropout", "sliding_window", "tie_word_embeddings");
  args.ignore("max_position_embeddings", "max_window_layers", "initializer_range", "use_cache");
  args.ignore("bos_token_id", "eos_token_id", "model_type", "dtype", "torch_dtype");
  args.finish("Qwen3Config");
  const chosen = chosenStates(recordedFields(recording), config.depth);
  const every = Array.from({ length: config.depth + 1 }, (_, i) => i);
  const names = [...recording.io.entries.keys()].flatMap(
    (name) => /^in\.(\w+)\.input_ids$/.exec(name)?.[1] ?? [],
  );
  const networks = names.toSorted().map((name) => {
    const params = createParams();
    const ids = requiredInput(recording, `${name}.input_ids`);
    const mask = recordedInput(recording.io, `${name}.attention_mask`)?.cast("bool");
    const states = qwen3(params, { ids, mask }, config, every);
    const [penultimate, last] = states.slice(-2) as [Tensor, Tensor];
    const outputs = {
      [`out.${name}.hidden_states`]: stack(states),
      [`out.${name}.penultimate`]: penultimate,
      [`out.${name}.last_hidden_state`]: last,
      ...(chosen.length > 0 && {
        [`out.${name}.klein`]: concat(
          chosen.map((state) => states.at(state)!),
          -1,
        ),
      }),
    };
    const loss = penultimate.square().mean().add(last.square().mean());
    return { params, outputs, loss, keys: qwen3Keys(weights, config.depth) };
  });
  return computeCases(recording, backend, networks);
};

/** The states whose concatenation was recorded, as indices of a list of `depth` + 1. */
function chosenStates(fields: FieldReader, depth: number): readonly number[] {
  const chosen = fields.numbers("klein_layers", []);
  const wrong = chosen.find(
    (state) => !Number.isInteger(state) || state < -depth - 1 || state > depth,
  );
  if (wrong === undefined) return chosen;
  throw new FormatError(
    `${fields.file} has the state ${wrong} among its "klein_layers", but the model has the states 0 to ${depth}; list those that were recorded.`,
  );
}
