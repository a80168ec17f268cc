/**
 * MMDiT-X as Stability-AI/sd3.5 builds it. Of each `caseN` are recorded `out.caseN.y` of `in.caseN.x`, `.t`, `.y` and
 * `.context`, and `out.caseN.y_skip`, the same without the blocks that its line of `calls` names as `skip_layers`; of the
 * first case the gradients of the mean of its square, too.
 */
import { FormatError } from "../engine/errors.ts";
import { full } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { type EncodedMMDiTConfig, mmditConfig } from "../models/mmdit/checkpoint.ts";
import { mmdit } from "../models/mmdit/mmdit.ts";
import { createParams } from "../nn/params.ts";
import { fieldReader } from "../weights/config-fields.ts";
import { quote } from "../engine/messages.ts";
import type { BackendSource, Computed } from "./family.ts";
import { computeNetwork, recordedModel, requiredInput } from "./network.ts";
import type { Recording } from "./recording.ts";

export async function* sd3MMDiT(
  recording: Recording,
  backend: BackendSource,
): AsyncGenerator<Computed> {
  const config = recordedMMDiT(recording);
  const { entries } = recording.io;
  const cases = [...entries.keys()].flatMap((name) => /^out\.(\w+)\.y$/.exec(name)?.[1] ?? []);
  for (const [i, name] of cases.toSorted().entries()) {
    const params = createParams();
    const [x, t, pooled, context] = ["x", "t", "y", "context"].map((part) =>
      requiredInput(recording, `${name}.${part}`),
    ) as [Tensor, Tensor, Tensor, Tensor];
    const inputs = { x, t: t.cast("float32"), pooled, context };
    const y = mmdit(params, inputs, config);
    const outputs = { [`out.${name}.y`]: y };
    const skipping = `out.${name}.y_skip`;
    if (entries.has(skipping)) {
      const skip = full([x.dim(0)], 1, "bool");
      const skippable = skippedBlocks(recording, name);
      outputs[skipping] = mmdit(params, { ...inputs, skip }, config, { skippable });
    }
    const gradients = i === 0 ? recording.gradients : undefined;
    const network = { params, outputs, loss: y.square().mean() };
    yield* computeNetwork({ ...recording, gradients }, backend, network);
  }
}

/** The config of a recorded model, whose heads need not be as wide as the original's. */
export function recordedMMDiT(recording: Recording): EncodedMMDiTConfig {
  const { args } = recordedModel(recording);
  const whole = fieldReader(args.file, recording.model!.config.fields);
  const [hidden, heads] = ["hidden_size", "num_heads"].map((name) => whole.optionalCount(name));
  return mmditConfig(args, { ...(hidden && { hidden }), ...(heads && { heads }) });
}

function skippedBlocks({ name: folder, config }: Recording, name: string): readonly number[] {
  const calls = config.fields["calls"];
  const call = Array.isArray(calls)
    ? calls.find((line) => String(line).startsWith(`out.${name}.y `))
    : undefined;
  const listed = /skip_layers=\[([\d, ]+)\]/.exec(String(call))?.[1];
  if (listed !== undefined) return listed.split(",").map(Number);
  throw new FormatError(
    `${folder} has ${quote(`out.${name}.y_skip`)}, but its "calls" do not say which blocks were left out; write skip_layers=[…] there.`,
  );
}
