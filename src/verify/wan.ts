/**
 * The transformers of Wan2.1 (`wan`) and Wan2.2 (`wan22`), whose originals take lists of clips of unequal sizes: `out.y0`, `out.y1`,
 * … for `in.x0`, …, the texts `in.context0`, … and the times `in.t`, or the same for several cases, `out.CASE.y0` for
 * `in.CASE.x0`. Gradients are those of the sum of the mean squares of all clips of all cases.
 */
import { FormatError, quote } from "../engine/errors.ts";
import { concat, full, input } from "../engine/graph/functional.ts";
import { formatShape } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { patchCount, patchGrid } from "../nn/patches.ts";
import { createParams } from "../nn/params.ts";
import { wanConfig } from "../models/wan/checkpoint.ts";
import type { WanConfig } from "../models/wan/config.ts";
import { packedWan, type WanClip } from "../models/wan/wan.ts";
import type { Family } from "./family.ts";
import { computeNetwork, recordedFields, recordedModel } from "./network.ts";
import type { Recording } from "./recording.ts";

/** Wan2.1, with one time for each clip. */
export const wan21: Family = (recording, backend) => verify(recording, backend, false);

/** Wan2.2, which takes a time for each token. */
export const wan22: Family = (recording, backend) => verify(recording, backend, true);

const verify = (
  recording: Recording,
  backend: Parameters<Family>[1],
  timePerToken: boolean,
): ReturnType<Family> => {
  const config = wanConfig(recordedModel(recording).args);
  const params = createParams();
  const outputs: Record<string, Tensor> = {};
  for (const prefix of casesOf(recording)) {
    const clips = clipsOf(recording, prefix, config, timePerToken);
    for (const [i, y] of packedWan(params, clips, config).entries()) {
      const [, ...clip] = y.shape;
      outputs[`out.${prefix}y${i}`] = y.reshape(clip);
    }
  }
  const losses = Object.values(outputs).map((y) => y.square().mean());
  const loss = losses.reduce((sum, each) => sum.add(each));
  return computeNetwork(recording, backend, { params, outputs, loss });
};

/** The prefixes of the recorded cases, "" where there is one. */
function casesOf({ name, io }: Recording): readonly string[] {
  const found = [...io.entries.keys()].flatMap((key) => {
    const match = /^in\.(\w+\.)?x\d+$/.exec(key);
    return match ? [match[1] ?? ""] : [];
  });
  if (found.length > 0) return [...new Set(found)].toSorted();
  throw new FormatError(
    `${name} has no clips ${quote("in.x0")}, ${quote("in.x1")}, … in ${io.name}; record the inputs with the outputs.`,
  );
}

/** The clips of a case, each as a batch of one. */
function clipsOf(
  recording: Recording,
  prefix: string,
  config: WanConfig,
  timePerToken: boolean,
): readonly WanClip[] {
  const { name, io } = recording;
  const leafOf = (wanted: string) => {
    const entry = io.entries.get(`in.${prefix}${wanted}`);
    if (entry?.dtype) return input(`in.${prefix}${wanted}`, entry.shape, entry.dtype);
    throw new FormatError(
      `${name} has no tensor ${quote(`in.${prefix}${wanted}`)} in ${io.name}; record the inputs with the outputs.`,
    );
  };
  const count = [...io.entries.keys()].filter(
    (key) => key.startsWith(`in.${prefix}x`) && /x\d+$/.test(key),
  ).length;
  const times = leafOf("t").cast("float32");
  return Array.from({ length: count }, (_, i) => {
    const x = leafOf(`x${i}`).unsqueeze(0); // [1, C, F, H, W]
    const tokens = patchCount(patchGrid(x, config.patch));
    const most = recordedFields(recording).count("seq_len");
    if (tokens > most) {
      throw new FormatError(
        `${name} has a clip of ${tokens} tokens, but its "seq_len" is ${most}, as if there were fewer; record the length with which the original ran.`,
      );
    }
    const t = timesOf(times, i, tokens, timePerToken, name);
    return { x, t, text: padded(leafOf(`context${i}`), config, name).unsqueeze(0) };
  });
}

/** The times of one clip, [1] or [1, N]: those of the tokens behind its own, which fill up the sequence, change nothing. */
function timesOf(
  times: Tensor,
  clip: number,
  tokens: number,
  timePerToken: boolean,
  recording: string,
): Tensor {
  if (times.rank === 2 && timePerToken) {
    return times.slice(0, clip, clip + 1).slice(1, 0, tokens);
  }
  if (times.rank === 1) {
    const row = times.size(0) === 1 ? 0 : clip;
    return times.slice(0, row, row + 1);
  }
  throw new FormatError(
    `${recording} has times of the shape ${formatShape(times.shape)}, but its original takes one for each clip${timePerToken ? ", or one for each token" : ""}.`,
  );
}

/** A text [length, width] with zeros behind it up to the length of the config. */
function padded(text: Tensor, { condition }: WanConfig, recording: string): Tensor {
  const missing = condition.length - text.size(0);
  if (missing < 0) {
    throw new FormatError(
      `${recording} has a text of ${text.size(0)} tokens, but its "text_len" is ${condition.length}; record a text that the original reads.`,
    );
  }
  if (missing === 0) return text;
  return concat([text, full([missing, condition.width], 0, text.dtype)], 0);
}
