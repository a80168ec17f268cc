/**
 * Helpers for all families of networks: recorded inputs as leaves of a graph, recorded weights as its parameters, and the
 * gradients of a scalar with respect to them.
 */
import { combine } from "../diffusion/arrays.ts";
import { FormatError, quote } from "../engine/errors.ts";
import { input } from "../engine/graph/functional.ts";
import { gradient } from "../engine/gradients/gradient.ts";
import { type Graph, graphOf, leafName } from "../engine/graph/graph.ts";
import { prefixed, recordOf } from "../engine/records.ts";
import type { WeightSource } from "../engine/runtime/backend.ts";
import { type NdArray, sizeOf } from "../engine/arrays/ndarray.ts";
import { batch } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import type { ParamsRoot } from "../nn/params.ts";
import { checkedWeights, type KeyMap, sameKeys } from "../weights/check-keys.ts";
import { type FieldReader, fieldReader } from "../weights/config-fields.ts";
import type { Weights } from "../weights/safetensors/safetensors.ts";
import { closing } from "../weights/sources/closing.ts";
import type { BackendSource, Computed } from "./family.ts";
import type { Recording } from "./recording.ts";

/** A network traced on recorded inputs. */
export interface Network {
  /** The parameters that the model declared; the recorded weights must be exactly these. */
  readonly params: ParamsRoot;
  /** Outputs by their names in io.safetensors. */
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** The scalar whose gradients may have been recorded. */
  readonly loss?: Tensor;
  /** Names of the recorded weights. */
  readonly keys?: KeyMap;
}

/** The error that rounding may cause in a gradient, as a fraction of its tensor's largest magnitude. */
const GRADIENT_SHARE = 5e-5;
/** The same as a fraction of the largest of all gradients: the gradient of a key's bias is a sum of terms that cancel. */
const CANCELLED_SHARE = 2 ** -23;

/** The recorded model and the constructor arguments that made it. */
export function recordedModel({ name, model }: Recording): {
  readonly weights: Weights;
  readonly args: FieldReader;
} {
  if (!model) {
    throw new FormatError(
      `${name} has no weights.safetensors with the recorded model; add it, or name a recording that has one as "weights_from".`,
    );
  }
  const args = fieldReader(`${name}/config.json`, model.config.fields).object("args");
  return { weights: model.weights, args };
}

/** The fields of the recording's own config.json. */
export function recordedFields({ name, config }: Recording): FieldReader {
  return fieldReader(`${name}/config.json`, config.fields);
}

/** The recorded `in.NAME` as a leaf with the batch as its first axis; undefined if it was not recorded. */
export function recordedInput(io: Weights, name: string): Tensor | undefined {
  const entry = io.entries.get(`in.${name}`);
  if (!entry?.dtype) return undefined;
  const [first, ...rest] = entry.shape;
  return input(`in.${name}`, first === undefined ? [] : [batch, ...rest], entry.dtype);
}

/** The same for an input that the model requires. */
export function requiredInput({ name, io }: Recording, wanted: string): Tensor {
  const leaf = recordedInput(io, wanted);
  if (leaf) return leaf;
  throw new FormatError(
    `${name} has no tensor ${quote(`in.${wanted}`)} in ${io.name}; record the inputs with the outputs.`,
  );
}

/** Runs the network once and yields every output, the loss and every gradient with its recorded value. */
export function computeNetwork(
  recording: Recording,
  backend: BackendSource,
  network: Network,
): AsyncGenerator<Computed> {
  return computeCases(recording, backend, [network]);
}

/** The same for several cases, whose losses were added up before the gradients were taken. */
export async function* computeCases(
  recording: Recording,
  backend: BackendSource,
  networks: readonly Network[],
): AsyncGenerator<Computed> {
  const { io, gradients } = recording;
  let sums: Readonly<Record<string, NdArray>> = {};
  for (const network of networks) {
    const { params, outputs, keys = sameKeys } = network;
    const weights = checkedWeights(params, recordedModel(recording).weights, keys);
    const differentiated = gradients ? gradientsOf(network, gradients, recording.name) : {};
    const graph = graphOf({ ...outputs, ...differentiated });
    const got = await runRecorded(graph, recording, backend, weights);
    for (const name of Object.keys(outputs)) {
      if (io.entries.has(name)) yield { name, got: got[name]!, want: await io.read(name) };
    }
    sums = recordOf(Object.keys(differentiated), (name) =>
      sums[name] ? combine([1, sums[name]], [1, got[name]!]) : got[name]!,
    );
  }
  if (gradients) yield* await besideRecorded(gradients, sums);
}

/** Runs a graph once on the recorded inputs that it names. */
export async function runRecorded(
  graph: Graph,
  { io }: Recording,
  backend: BackendSource,
  weights?: WeightSource,
): Promise<Readonly<Record<string, NdArray>>> {
  const program = await (await backend()).compile(graph, weights ? { weights } : {});
  return closing({ close: () => program.dispose() }, async () => {
    const inputs: Record<string, NdArray> = {};
    for (const name of graph.inputs.map(leafName)) inputs[name] = await io.read(name);
    return program.run(inputs);
  });
}

/** Prefix of the gradients among the outputs; no output begins with it. */
const prefix = "grads.";
/** Name of the scalar itself in grads.safetensors. */
const LOSS = "__loss__";

async function besideRecorded(
  gradients: Weights,
  got: Readonly<Record<string, NdArray>>,
): Promise<Computed[]> {
  const names = [...gradients.entries.keys()];
  const wanted = await Promise.all(names.map((name) => gradients.read(name)));
  const sizes = wanted.map(largest);
  const cancelled = CANCELLED_SHARE * Math.max(...sizes.filter((_, i) => names[i] !== LOSS));
  return wanted.map((want, i) => ({
    name: prefix + names[i]!,
    got: got[prefix + names[i]!]!,
    want,
    tolerance: { atol: GRADIENT_SHARE * sizes[i]! + cancelled },
  }));
}

/** The loss and its gradients, by `prefix` and their name in grads.safetensors. */
function gradientsOf(
  { params, loss, keys = sameKeys }: Network,
  gradients: Weights,
  recording: string,
): Record<string, Tensor> {
  if (!loss) {
    throw new FormatError(
      `${recording} has a grads.safetensors, but this family has no gradients; remove it.`,
    );
  }
  const byKey = new Map(
    [...params.declared].map(([name, { tensor }]) => [keys.keyOf(name), tensor]),
  );
  const wanted = [...gradients.entries.keys()].filter((key) => key !== LOSS);
  const parameters = wanted.map((key) => {
    const tensor = byKey.get(key);
    if (tensor) return tensor;
    throw new FormatError(
      `${gradients.name} has a gradient of ${quote(key)}, but the model has no such weight; record gradients and weights from the same model.`,
    );
  });
  const computed = gradient(loss, parameters);
  const named = recordOf(wanted, (key, i) => likeStored(computed[i]!, gradients, key));
  return prefixed(prefix, gradients.entries.has(LOSS) ? { [LOSS]: loss, ...named } : named);
}

/** A gradient in the shape of the recorded one: a linear layer may be stored as a 1×1 convolution. */
function likeStored(computed: Tensor, gradients: Weights, key: string): Tensor {
  const { shape } = gradients.entries.get(key)!;
  return sizeOf(computed.shape as readonly number[]) === sizeOf(shape)
    ? computed.reshape(shape)
    : computed;
}

/** The largest magnitude of an array. */
export function largest({ data }: NdArray): number {
  let result = 0;
  for (const x of data) result = Math.max(result, Math.abs(Number(x)));
  return result;
}
