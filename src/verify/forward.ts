/**
 * Forward passes of the networks in the table of model families. A family says in `recorded` how the inputs and the output
 * are named; with the name of its output for NAME, a recording may contain
 *
 *     out.NAME            the output, and gradients of the mean of its square
 *     out.CASE.NAME       the same for several cases with inputs `in.CASE.…`; gradients belong to the first case, or to
 *                         the sum over all where the family says so
 *     out.CASE.NAME_skip  without the blocks that the case's line of `calls` names as `skip_layers`
 *     out.NAME_with_cfg   (or the family's `guidedOutput`) with the original's classifier-free guidance, for the inputs `in.cfg_…` and `in.cfg_scale`
 */
import { FormatError, quote } from "../engine/errors.ts";
import { full, input } from "../engine/graph/functional.ts";
import { batchTimes } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { families } from "../models/families.ts";
import type {
  NetworkFamily,
  NetworkFields,
  NetworkInputs,
  RecordedForward,
} from "../models/family.ts";
import { mapValues } from "../engine/records.ts";
import { createParams } from "../nn/params.ts";
import { checkTables } from "../weights/check-keys.ts";
import { type FieldReader, fieldReader } from "../weights/config-fields.ts";
import type { BackendSource, Computed, Family } from "./family.ts";
import {
  computeCases,
  computeNetwork,
  type Network,
  recordedModel,
  requiredInput,
} from "./network.ts";
import type { Recording } from "./recording.ts";

/** A family whose forward pass can be recorded. */
export type RecordedFamily = NetworkFamily & { readonly recorded: RecordedForward<NetworkFields> };

/** The families whose recordings are forward passes, by the name in their config.json. */
export function recordedFamilies(): readonly RecordedFamily[] {
  return [...families.values()].filter(
    (family): family is RecordedFamily => family.recorded !== undefined,
  );
}

/** The family of a name in config.json, for recordings of what is done with its network. */
export function recordedFamily(name: string): RecordedFamily {
  return recordedFamilies().find(({ recorded }) => recorded.name === name)!;
}

/** The config of a recorded model; `args` are those of the original's constructor, its own unless given. */
export function recordedConfig(
  { recorded }: RecordedFamily,
  recording: Recording,
  args: FieldReader = recordedModel(recording).args,
): NetworkFields {
  const fields = recording.model?.config.fields ?? recording.config.fields;
  return recorded.config(args, fieldReader(args.file, fields));
}

export function forwardOf(family: RecordedFamily): Family {
  const { output, guidedOutput = `${output}_with_cfg` } = family.recorded;
  return async function* forward(recording, backend) {
    const config = recordedConfig(family, recording);
    const names = [...recording.io.entries.keys()];
    const pattern = new RegExp(`^out\\.(\\w+\\.)?${output}$`);
    const cases = names.flatMap((name) => {
      const match = pattern.exec(name);
      return match ? [match[1] ?? ""] : [];
    });
    if (cases.length === 0 && recording.gradients) cases.push("");
    const sorted = cases.toSorted();
    const together = family.recorded.gradientsOf === "all cases";
    for (const [i, prefixes] of (together ? [sorted] : sorted.map((each) => [each])).entries()) {
      const gradients = i === 0 ? recording.gradients : undefined;
      yield* someCases(family, config, { ...recording, gradients }, prefixes, backend);
    }
    if (names.includes(`out.${guidedOutput}`)) {
      yield* guidedCase(family, config, { ...recording, gradients: undefined }, backend);
    }
  };
}

/** The inputs of the network, as leaves by their recorded names. */
function inputsOf(
  { recorded }: RecordedFamily,
  config: NetworkFields,
  leafOf: (name: string) => Tensor,
): NetworkInputs {
  const leaves = mapValues(recorded.inputs(config), (wanted, name) => {
    const leaf = leafOf(wanted);
    return name === "t" ? leaf.cast("float32") : name === "mask" ? leaf.cast("bool") : leaf;
  });
  return leaves as unknown as NetworkInputs;
}

/** Cases whose losses were added up before the gradients were taken. */
async function* someCases(
  family: RecordedFamily,
  config: NetworkFields,
  recording: Recording,
  prefixes: readonly string[],
  backend: BackendSource,
): AsyncGenerator<Computed> {
  const networks = prefixes.map((prefix) => caseOf(family, config, recording, prefix));
  for (const { params } of networks) await checkTables(params, recordedModel(recording).weights);
  yield* computeCases(recording, backend, networks);
}

function caseOf(
  family: RecordedFamily,
  config: NetworkFields,
  recording: Recording,
  prefix: string,
): Network {
  const params = createParams();
  const inputs = inputsOf(family, config, (name) => requiredInput(recording, prefix + name));
  const output =
    family.recorded.trace?.(params, inputs, config) ?? family.trace(params, inputs, config, {});
  const name = `out.${prefix}${family.recorded.output}`;
  const outputs: Record<string, Tensor> = { [name]: output };
  if (recording.io.entries.has(`${name}_skip`)) {
    const skip = full([inputs.x.dim(0)], 1, "bool");
    const skippable = skippedLayers(recording, name);
    outputs[`${name}_skip`] = family.trace(params, { ...inputs, skip }, config, { skippable });
  }
  return { params, outputs, loss: output.square().mean() };
}

function skippedLayers({ name: folder, config }: Recording, output: string): readonly number[] {
  const calls = config.fields["calls"];
  const call = Array.isArray(calls)
    ? calls.find((line) => String(line).startsWith(`${output} `))
    : undefined;
  const listed = /skip_layers=\[([\d, ]+)\]/.exec(String(call))?.[1];
  if (listed !== undefined) return listed.split(",").map(Number);
  throw new FormatError(
    `${folder} has ${quote(`${output}_skip`)}, but its "calls" do not say which blocks were skipped; add skip_layers=[…] there.`,
  );
}

async function* guidedCase(
  family: RecordedFamily,
  config: NetworkFields,
  recording: Recording,
  backend: BackendSource,
): AsyncGenerator<Computed> {
  const { recorded } = family;
  const { output, guidedOutput = `${output}_with_cfg` } = recorded;
  if (!recorded.guided) {
    throw new FormatError(
      `${recording.name} has a recorded guidance, but the original of ${recorded.name} has none; remove it.`,
    );
  }
  // The batch contains each image twice, with its condition and without.
  const inputs = inputsOf(family, config, (name) => {
    const { shape, dtype } = requiredInput(recording, `cfg_${name}`);
    return input(`in.cfg_${name}`, [batchTimes(2), ...shape.slice(1)], dtype);
  });
  const params = createParams();
  const scale = requiredInput(recording, "cfg_scale").cast("float32");
  const outputs = {
    [`out.${guidedOutput}`]: recorded.guided(params, inputs, config, scale),
  };
  yield* computeNetwork(recording, backend, { params, outputs });
}
