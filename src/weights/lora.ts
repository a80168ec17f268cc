/**
 * Reads and writes LoRA files, and what LyCORIS writes in their place, under the names of Patchwise, diffusers and PEFT
 * (`transformer.M.lora_A.weight`), kohya (`lora_unet_M.lora_down.weight`, with underscores for the dots of M)
 * and ComfyUI (`diffusion_model.M.lora_up.weight`). M is a layer's name in the original code or in diffusers,
 * which has separate projections where the original code has one layer.
 */
import { prefixed } from "../engine/records.ts";
import { FormatError, listed, PatchwiseError, quote } from "../engine/errors.ts";
import { type NdArray, ndarray, sizeOf } from "../engine/arrays/ndarray.ts";
import { formatShape } from "../engine/graph/shape.ts";
import {
  type Delta,
  dense,
  formOf,
  isOfWeight,
  type LoraRole,
  loraRole,
  type Rows,
  someRows,
  unsupportedVariant,
} from "./lora-forms.ts";
import {
  checkSettings,
  type LoraSettings,
  numberIn,
  settingsIn,
  settingsKey,
} from "./lora-settings.ts";
import { readFloat32, type Weights } from "./safetensors/safetensors.ts";
import type { TensorEntry } from "./safetensors/header.ts";
import type { Metadata, NamedArrays } from "./safetensors/write.ts";

/** One of the names of a layer. */
export interface LayerName {
  readonly name: string;
  /** The layer's path in this library; its weight has the shape [out, in, …kernel]. */
  readonly layer: string;
  readonly shape: readonly number[];
  /** The rows of the weight that the name stands for; all by default. */
  readonly rows?: readonly RowRange[] | undefined;
  /** Which of `of` equal parts of the rows of an update belongs to the layer, where the name stands for several layers. */
  readonly part?: { readonly index: number; readonly of: number } | undefined;
}

export type RowRange = readonly [from: number, to: number];

/** An update of some rows of a layer's weight or bias: scale·delta. */
export interface LoraPart {
  readonly layer: string;
  readonly parameter: "weight" | "bias";
  readonly rows: readonly RowRange[];
  /** One row for each row in `rows`. */
  readonly delta: Rows;
  readonly scale: number;
}

export interface Lora {
  readonly parts: readonly LoraPart[];
  /** Sentences about what was ignored in the file. */
  readonly warnings: readonly string[];
}

/** The component of a module, for which ComfyUI and PEFT have prefixes of their own. */
const componentPrefix =
  /^(?:transformer|(?:model\.)?diffusion_model|base_model\.model(?:\.transformer)?)\./;
const underscorePrefix = /^(?:lora_unet|lora_transformer|lycoris)_/;
const textEncoder = /^(?:lora_te\d?_|text_encoders?[._]|(?:base_model\.)?text_model\.)/;

/**
 * Reads a LoRA for a network.
 *
 * @param names all names of all layers of the network
 * @param model how errors name the network
 * @param beside settings of a file beside the LoRA, such as PEFT's adapter_config.json, which count if the file has none
 * @throws FormatError if the file is no LoRA, or its layers do not exist in the network or have other shapes
 */
export async function readLora(
  file: Weights,
  names: readonly LayerName[],
  model: string,
  beside: LoraSettings = {},
): Promise<Lora> {
  const settings = settingsIn(file) ?? beside;
  checkSettings(file.name, settings);
  const modules = modulesIn(file);
  const all = [...modules.keys()];
  const ofText = all.filter((module) => textEncoder.test(module));
  const own = all.filter((module) => !ofText.includes(module));
  const find = finder(names);
  const unknown = own.filter((module) => find(module).length === 0);
  if (unknown.length > 0 || (own.length === 0 && ofText.length === 0)) {
    throw new FormatError(
      own.length === 0
        ? `${file.name} holds no LoRA${example(file)}; give the .safetensors file of one.`
        : `${file.name} is for other layers than ${model} has: ${listed(unknown.map(quote))}; give a LoRA of this model.`,
    );
  }
  const parts: LoraPart[] = [];
  for (const module of own) {
    for (const name of find(module)) {
      parts.push(...(await partsOf(file, module, modules.get(module)!, name, settings)));
    }
  }
  const warnings =
    ofText.length === 0
      ? []
      : [
          `${file.name} also has updates for text encoders, which are ignored: ${listed(ofText.map(quote))}.`,
        ];
  return { parts, warnings };
}

type Module = Partial<Record<LoraRole, TensorEntry>>;

/** Groups the tensors of a file by the module's name as written. */
function modulesIn(file: Weights): Map<string, Module> {
  const modules = new Map<string, Module>();
  const keys = [...file.entries.keys()];
  const variant = keys.map(unsupportedVariant).find((name) => name !== undefined);
  const isOne = keys.some((key) => isOfWeight(loraRole(key)?.role ?? "alpha"));
  if (!isOne && variant === undefined) return modules;
  for (const [key, entry] of file.entries) {
    const found = loraRole(key);
    if (!found) {
      const what = variant === undefined ? "not part of a LoRA" : `of ${variant}`;
      throw new FormatError(
        `${file.name} holds ${quote(key)}, which is ${what} and cannot be merged; use a plain LoRA, a LoHa, a LoKr or full differences.`,
      );
    }
    modules.set(found.module, { ...modules.get(found.module), [found.role]: entry });
  }
  for (const [module, { down, up, ...others }] of modules) {
    const own = [down, up, ...Object.values(others)];
    const roles = Object.keys(modules.get(module)!) as LoraRole[];
    if (formOf(roles) || (others.bias && !roles.some(isOfWeight))) continue;
    const half = down ? "only the first" : up ? "only the second" : "neither";
    throw new FormatError(
      roles.some((role) => isOfWeight(role) && role !== "down" && role !== "up")
        ? `${file.name} holds only ${listed(own.flatMap((entry) => (entry ? [quote(entry.name)] : [])))} of ${quote(module)}, from which no update can be computed; download or save it again.`
        : `${file.name} holds ${half} of the two matrices of ${quote(module)}; download or save it again.`,
    );
  }
  return modules;
}

/** Returns a function that finds the layer of a module, or the layers that it stands for together. */
function finder(names: readonly LayerName[]): (module: string) => readonly LayerName[] {
  const byName = grouped(names, ({ name }) => name);
  const byUnderscores = grouped(names, ({ name }) => name.replaceAll(".", "_"));
  return (module) =>
    byName.get(module) ??
    byName.get(module.replace(componentPrefix, "")) ??
    (underscorePrefix.test(module)
      ? byUnderscores.get(module.replace(underscorePrefix, ""))
      : undefined) ??
    [];
}

function grouped(names: readonly LayerName[], keyOf: (name: LayerName) => string) {
  const groups = new Map<string, LayerName[]>();
  for (const each of names) groups.set(keyOf(each), [...(groups.get(keyOf(each)) ?? []), each]);
  return groups;
}

async function partsOf(
  file: Weights,
  module: string,
  entries: Module,
  { layer, shape, rows = [[0, shape[0]!]], part = { index: 0, of: 1 } }: LayerName,
  settings: LoraSettings,
): Promise<LoraPart[]> {
  const count = rows.reduce((sum, [from, to]) => sum + to - from, 0);
  const outputs = count * part.of;
  const ofLayer = (delta: Rows) =>
    part.of === 1 ? delta : someRows(delta, part.index * count, count);
  const inputs = sizeOf(shape.slice(1));
  const { down, up, alpha, bias } = entries;
  if (down && up) {
    const [rank = 0] = down.shape;
    if (rank < 1 || sizeOf(down.shape) !== rank * inputs || down.shape.length < 2) {
      throw misshaped(file, down, `[rank, ${inputs}]`, layer, shape);
    }
    if (up.shape[0] !== outputs || up.shape[1] !== rank || sizeOf(up.shape) !== outputs * rank) {
      throw misshaped(file, up, `[${outputs}, ${rank}]`, layer, shape);
    }
  }
  if (bias && sizeOf(bias.shape) !== outputs) {
    throw misshaped(file, bias, `[${outputs}]`, layer, shape);
  }
  if (alpha && sizeOf(alpha.shape) !== 1) {
    throw new FormatError(
      `${file.name}: ${quote(alpha.name)} is ${formatShape(alpha.shape)}, but must be one number.`,
    );
  }
  const arrays: Partial<Record<LoraRole, NdArray<"float32">>> = {};
  for (const [role, entry] of Object.entries(entries) as [LoraRole, TensorEntry][]) {
    arrays[role] = await finite(file, entry);
  }
  const parts: LoraPart[] = [];
  const form = formOf(Object.keys(entries) as LoraRole[]);
  if (form) {
    const { rows: delta, rank } = checkedDelta(file, module, () => form(arrays));
    if (delta.outputs !== outputs || delta.inputs !== inputs) {
      throw new FormatError(
        `${file.name}: the update of ${quote(module)} is [${delta.outputs}, ${delta.inputs}], but must be [${outputs}, ${inputs}] for ${layer}, whose weight is ${formatShape(shape)}; give a file for this model.`,
      );
    }
    const scale = scaleOf(file, module, arrays.alpha?.data[0], rank, settings);
    parts.push({ layer, parameter: "weight", rows, delta: ofLayer(delta), scale });
  }
  if (arrays.bias) {
    const column = ndarray("float32", [outputs, 1], arrays.bias.data);
    parts.push({ layer, parameter: "bias", rows, delta: ofLayer(dense(column)), scale: 1 });
  }
  return parts;
}

/** @throws PatchwiseError if a number of the tensor is not finite, as a training that diverged leaves it */
async function finite(file: Weights, entry: TensorEntry): Promise<NdArray<"float32">> {
  const array = await readFloat32(entry);
  const wrong = array.data.find((value) => !Number.isFinite(value));
  if (wrong === undefined) return array;
  throw new PatchwiseError(
    `${file.name}: ${quote(entry.name)} holds ${wrong}, so its training has diverged; give a LoRA of finite numbers.`,
  );
}

function checkedDelta(file: Weights, module: string, build: () => Delta): Delta {
  try {
    return build();
  } catch (error) {
    throw new FormatError(
      `${file.name}: the update of ${quote(module)} cannot be computed, since its ${(error as Error).message}; download or save it again.`,
    );
  }
}

/** alpha / rank, or 1 where the tensors show no rank and no settings give one. */
function scaleOf(
  file: Weights,
  module: string,
  stored: number | undefined,
  shown: number | undefined,
  settings: LoraSettings,
): number {
  const name = module.replace(componentPrefix, "");
  const isPeft = settings["peft_type"] === "LOKR";
  const rank =
    shown ?? (isPeft ? numberIn(settings, "rank_pattern", name, settings["r"]) : undefined);
  if (rank === undefined) return 1;
  const common = settings["lora_alpha"] ?? settings["alpha"];
  const alpha = stored ?? numberIn(settings, "alpha_pattern", name, common) ?? rank;
  if (!Number.isFinite(alpha) || !(rank > 0)) {
    throw new FormatError(`${file.name}: the alpha of ${quote(module)} is not a finite number.`);
  }
  // In rank-stabilized LoRA (Kalajdzievski, 2023), the scale is divided by the square root of the rank.
  return alpha / (settings["use_rslora"] === true ? Math.sqrt(rank) : rank);
}

function misshaped(
  { name }: Weights,
  entry: TensorEntry,
  expected: string,
  layer: string,
  shape: readonly number[],
): FormatError {
  return new FormatError(
    `${name}: ${quote(entry.name)} is ${formatShape(entry.shape)}, but must be ${expected} for ${layer}, whose weight is ${formatShape(shape)}; give a LoRA of this model.`,
  );
}

/**
 * Converts a LoRA to a file that other programs read: under diffusers' names, with the scale alpha / rank
 * multiplied into the second matrix, so that no alpha is needed.
 *
 * @param layers the two matrices by layer: down [rank, in] and up [out, rank]
 * @param nameOf the names of a layer in diffusers, which may be several for parts of its rows
 */
export function loraFile(
  layers: ReadonlyMap<
    string,
    { readonly down: NdArray<"float32">; readonly up: NdArray<"float32"> }
  >,
  { rank, alpha }: { readonly rank: number; readonly alpha: number },
  nameOf: (layer: string) => readonly LayerName[],
): { readonly tensors: NamedArrays; readonly metadata: Metadata } {
  const tensors: (readonly [string, NdArray<"float32">])[] = [];
  const modules: string[] = [];
  for (const [layer, { down, up }] of layers) {
    for (const { name, shape, rows = [[0, shape[0]!]] } of nameOf(layer)) {
      const values = rows.flatMap(([from, to]) => [...up.data.subarray(from * rank, to * rank)]);
      const scaled = Float32Array.from(values, (value) => (value * alpha) / rank);
      modules.push(name);
      tensors.push(
        [`transformer.${name}.lora_A.weight`, down],
        [
          `transformer.${name}.lora_B.weight`,
          ndarray("float32", [scaled.length / rank, rank], scaled),
        ],
      );
    }
  }
  const settings = { r: rank, lora_alpha: rank, target_modules: modules };
  return {
    tensors,
    metadata: [
      ["format", "pt"],
      [settingsKey, JSON.stringify(prefixed<unknown>("transformer.", settings))],
    ],
  };
}

/**
 * Adds LoRA parts, each multiplied by its weight, to a weight [out, in, …kernel] or a bias [out]. Sums are in double
 * precision.
 */
export function mergeLora(
  base: NdArray<"float32">,
  parts: readonly (Pick<LoraPart, "rows" | "delta" | "scale"> & { readonly weight: number })[],
): NdArray<"float32"> {
  const data = base.data.slice();
  const [outputs = 0] = base.shape;
  const inputs = sizeOf(base.shape.slice(1));
  const sources = parts.map(({ rows }) => sourcesOf(rows, outputs));
  const sum = new Float64Array(inputs);
  for (let row = 0; row < outputs; row++) {
    sum.fill(0);
    for (const [i, { delta, scale, weight }] of parts.entries()) {
      const source = sources[i]![row]!;
      if (source >= 0) delta.add(sum, source, scale * weight);
    }
    const start = row * inputs;
    for (let j = 0; j < inputs; j++) data[start + j]! += sum[j]!;
  }
  return { ...base, data };
}

/**
 * The matrices whose product `mergeLora` would add to a weight of `shape`, with the parts' scales and weights in the first one.
 *
 * @returns undefined if a part is no product of two matrices
 */
export function loraFactors(
  shape: readonly number[],
  parts: readonly (Pick<LoraPart, "rows" | "delta" | "scale"> & { readonly weight: number })[],
): readonly [up: NdArray<"float32">, down: NdArray<"float32">] | undefined {
  const [outputs = 0] = shape;
  const inputs = sizeOf(shape.slice(1));
  const all = parts.flatMap(({ delta: { factors }, ...part }) =>
    factors ? { ...part, factors } : [],
  );
  if (all.length < parts.length) return undefined;
  const rank = all.reduce((sum, { factors: [, right] }) => sum + right.shape[0]!, 0);
  const up = new Float32Array(outputs * rank);
  const down = new Float32Array(rank * inputs);
  let top = 0;
  for (const { rows, scale, weight, factors } of all) {
    const [left, right] = factors;
    const own = right.shape[0]!;
    down.set(right.data, top * inputs);
    for (const [row, source] of sourcesOf(rows, outputs).entries()) {
      if (source < 0) continue;
      for (let k = 0; k < own; k++) {
        up[row * rank + top + k] = scale * weight * left.data[source * own + k]!;
      }
    }
    top += own;
  }
  return [ndarray("float32", [outputs, rank], up), ndarray("float32", [rank, inputs], down)];
}

/** For each row of a weight, the row of a LoRA's update that applies to it; −1 for none. */
function sourcesOf(rows: readonly RowRange[], outputs: number): Int32Array {
  const sources = new Int32Array(outputs).fill(-1);
  let next = 0;
  for (const [from, to] of rows) for (let row = from; row < to; row++) sources[row] = next++;
  return sources;
}

function example({ entries }: Weights): string {
  const first = entries.keys().next();
  return first.done ? "" : `: none of its tensors, such as ${quote(first.value)}, is of one`;
}
