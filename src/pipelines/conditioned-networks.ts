/** The network of a model under the conditions of a request: its prompts are encoded, and what guidance compares is run at once. */
import { stackRows } from "../diffusion/arrays.ts";
import { cachedNetwork, cacheLimits, pickAll } from "../diffusion/step-cache.ts";
import { batchedNetwork, type Conditions, type Network } from "../diffusion/denoiser.ts";
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { mapValues } from "../engine/records.ts";
import { canDrop, guidesItself, takesStart } from "../models/network.ts";
import type { Condition } from "./conditions.ts";
import type { DrawingOptions, ImageModel, RunStage, Stages } from "./image-model.ts";
import type { InspectOptions, TappedNetworks } from "./inspect.ts";
import type { EncodedReferences } from "./references.ts";
import { type ResolvedRequest, skippedLayers } from "./settings.ts";

export interface NetworkContext {
  readonly model: ImageModel;
  readonly stages: Stages;
  readonly run: RunStage;
  readonly encode: (texts: readonly string[]) => Promise<readonly Conditions[]>;
}

/** The input of the network. */
export interface InputForm extends Pick<DrawingOptions, "frames" | "timePerToken"> {
  /** Reference pictures that every row has. */
  readonly references?: EncodedReferences | undefined;
  readonly size: readonly [height: number, width: number];
  /** The number of frames of a longer clip before this one, which some networks take; 0 unless given. */
  readonly start?: number | undefined;
}

/** Returns true if the network can be run without its condition beside the one with it. */
export function guidable({ model: { network, process, defaults } }: NetworkContext): boolean {
  const { guidable: trained = true } = defaults;
  return trained && canDrop(network) && !guidesItself(network) && !process.guidesItself;
}

/**
 * The network under the conditions of a request. What is asked at the same time is one run of the network.
 *
 * @param inspected returns intermediate tensors, and has the unconditional network whether or not the request is guided
 */
export async function networksUnder(
  { settings, condition, negative, levels }: ResolvedRequest,
  { size, frames, timePerToken, references, start = 0 }: InputForm,
  context: NetworkContext,
  signal: AbortSignal | undefined,
  inspected?: InspectOptions,
): Promise<TappedNetworks> {
  const { count, guidance } = settings;
  const { run } = context;
  const { network: config, process } = context.model;
  const told = guidesItself(config);
  const alone = inspected ? !guidable(context) : guidance === 1 || told || process.guidesItself;
  const wanted = alone ? [condition] : [condition, negative];
  const [positive, other = positive] = (await networkInputs(wanted, count, context)) as [
    Conditions,
    Conditions?,
  ];
  const skippable = skippedLayers(settings);
  const { taps: asked } = inspected ?? {};
  const shown = { frames, timePerToken, references: references?.sizes };
  const form = { ...shown, skippable, taps: asked, compute: settings.compute };
  const stage = context.stages.network(size, form);
  let taps: Readonly<Record<string, NdArray>> = {};
  const network = batchedNetwork(async (inputs) => {
    const { output, ...others } = await run(stage, inputs, signal ? { signal } : {});
    taps = others;
    return output!;
  });
  const each = (dtype: "bool" | "float32", value: number) =>
    ndarray(dtype, [count], new Array<number>(count).fill(value));
  const scale = told ? { guidance: each("float32", guidance) } : {};
  const begins = takesStart(config) ? { start: each("float32", start) } : {};
  const { cache = "off" } = settings;
  const reuse = { asked: 0, reused: 0 };
  const under = (conditions: Conditions, skips = 0): Network => {
    const skip = skippable.length === 0 ? {} : { skip: each("bool", skips) };
    const whole = { ...conditions, ...scale, ...begins, ...skip, ...references?.inputs };
    if (cache === "off" || inspected) return network(whole);
    // The sampler ends at the last level, and asks the network last at the one before.
    const limits = { ...cacheLimits[cache], last: levels.at(-2)!.time };
    return cachedNetwork((rows) => network(pickAll(whole, rows)), limits, reuse);
  };
  return {
    conditional: under(positive),
    unconditional: under(other),
    weakened: under(positive, 1),
    taps: () => taps,
    cached: cache === "off" ? undefined : reuse,
  };
}

/** The network's inputs for `count` pictures of each condition. */
async function networkInputs(
  conditions: readonly Condition[],
  count: number,
  { model, encode }: NetworkContext,
): Promise<readonly Conditions[]> {
  const { condition: kind } = model.network;
  switch (kind.kind) {
    case "none":
      return conditions.map(() => ({}));
    case "class":
      return conditions.map((each) => {
        // Index `classes` is the null class.
        const index = each.kind === "class" ? each.index : kind.classes;
        return { y: ndarray("int64", [count], new Array<number>(count).fill(index)) };
      });
    case "text": {
      const rows = await encode(conditions.map((each) => (each.kind === "text" ? each.text : "")));
      return rows.map((row) =>
        mapValues(row, (array) => stackRows(new Array<NdArray>(count).fill(array))),
      );
    }
  }
}

/** Number of texts whose encodings are cached; a long prompt takes some megabytes. */
const CACHED_TEXTS = 8;

/** The model's prompt encoder, run only for texts that were not encoded lately. */
export function cachedEncoder({ encoder }: ImageModel, run: RunStage): NetworkContext["encode"] {
  /** Least recently used first. */
  const cache = new Map<string, Conditions>();
  return async (texts) => {
    const unknown = [...new Set(texts)].filter((text) => !cache.has(text));
    const made = unknown.length > 0 ? await encoder!.encode(unknown, run) : [];
    const found = new Map([...cache, ...unknown.map((text, i) => [text, made[i]!] as const)]);
    for (const text of texts) {
      cache.delete(text);
      cache.set(text, found.get(text)!);
    }
    for (const text of [...cache.keys()].slice(0, -CACHED_TEXTS)) cache.delete(text);
    return texts.map((text) => found.get(text)!);
  };
}
