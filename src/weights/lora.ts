/**
 * Reads and writes LoRA files under the names of Patchwise, diffusers and PEFT
 * (`transformer.M.lora_A.weight`), kohya (`lora_unet_M.lora_down.weight`, with underscores for the dots of M)
 * and ComfyUI (`diffusion_model.M.lora_up.weight`). M is a layer's name in the original code or in diffusers,
 * which has separate projections where the original code has one layer.
 */
import { prefixed } from "../engine/records.ts";
import { FormatError } from "../engine/errors.ts";
import { type NdArray, ndarray, sizeOf } from "../engine/arrays/ndarray.ts";
import { formatShape } from "../engine/graph/shape.ts";
import { listed, quote } from "../engine/messages.ts";
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
}

export type RowRange = readonly [from: number, to: number];

/** An update of some rows of a layer's weight: scale·up·down. */
export interface LoraPart {
  readonly layer: string;
  readonly rows: readonly RowRange[];
  /** [rank, in] */
  readonly down: NdArray<"float32">;
  /** [out, rank]: one row for each row in `rows`. */
  readonly up: NdArray<"float32">;
  readonly scale: number;
}

export interface Lora {
  readonly parts: readonly LoraPart[];
  /** Sentences about what was ignored in the file. */
  readonly warnings: readonly string[];
}

/** The settings that a writer stores beside the tensors, by PEFT's names. */
export type LoraSettings = Readonly<Record<string, unknown>>;

/** The metadata key under which diffusers stores such settings, as JSON with the component before each name. */
const settingsKey = "lora_adapter_metadata";

/** The component of a module, for which ComfyUI and PEFT have prefixes of their own. */
const componentPrefix =
  /^(?:transformer|(?:model\.)?diffusion_model|base_model\.model(?:\.transformer)?)\./;
const underscorePrefix = /^(?:lora_unet|lora_transformer|lycoris)_/;
const textEncoder = /^(?:lora_te\d?_|text_encoders?[._]|(?:base_model\.)?text_model\.)/;

const roles = [
  ["down", /(?:\.lora_A(?:\.[^.]+)?|[._]lora[._]down|\.lora_linear_layer\.down)\.weight$/],
  ["up", /(?:\.lora_B(?:\.[^.]+)?|[._]lora[._]up|\.lora_linear_layer\.up)\.weight$/],
  ["alpha", /\.alpha$/],
] as const;

/**
 * Reads a LoRA for a network.
 *
 * @param names all names of all layers of the network
 * @param model how errors name the network
 * @param settings from a file beside the LoRA, such as PEFT's adapter_config.json; by default those in the
 *   file itself
 * @throws FormatError if the file is no LoRA, or its layers do not exist in the network or have other shapes
 */
export async function readLora(
  file: Weights,
  names: readonly LayerName[],
  model: string,
  settings: LoraSettings = settingsIn(file),
): Promise<Lora> {
  const modules = modulesIn(file);
  const all = [...modules.keys()];
  const ofText = all.filter((module) => textEncoder.test(module));
  const own = all.filter((module) => !ofText.includes(module));
  const find = finder(names);
  const unknown = own.filter((module) => !find(module));
  if (unknown.length > 0 || (own.length === 0 && ofText.length === 0)) {
    throw new FormatError(
      own.length === 0
        ? `${file.name} holds no LoRA${example(file)}; give the .safetensors file of one.`
        : `${file.name} is for other layers than ${model} has: ${listed(unknown.map(quote))}; give a LoRA of this model.`,
    );
  }
  const parts: LoraPart[] = [];
  for (const module of own) {
    parts.push(await partOf(file, module, modules.get(module)!, find(module)!, settings));
  }
  const warnings =
    ofText.length === 0
      ? []
      : [
          `${file.name} also has updates for text encoders, which are ignored: ${listed(ofText.map(quote))}.`,
        ];
  return { parts, warnings };
}

type Module = Partial<Record<(typeof roles)[number][0], TensorEntry>>;

/** Groups the tensors of a file by the module's name as written. */
function modulesIn(file: Weights): Map<string, Module> {
  const modules = new Map<string, Module>();
  if (![...file.entries.keys()].some(isMatrix)) return modules;
  for (const [key, entry] of file.entries) {
    const role = roles.find(([, pattern]) => pattern.test(key));
    if (!role) {
      throw new FormatError(
        `${file.name} holds ${quote(key)}, which is not part of a LoRA; variants such as DoRA, LoHa and LoKr are not supported, so use a plain LoRA.`,
      );
    }
    const module = key.replace(role[1], "");
    modules.set(module, { ...modules.get(module), [role[0]]: entry });
  }
  for (const [module, { down, up }] of modules) {
    if (down && up) continue;
    throw new FormatError(
      `${file.name} holds ${down ? "only the first" : up ? "only the second" : "neither"} of the two matrices of ${quote(module)}; download or save it again.`,
    );
  }
  return modules;
}

function isMatrix(key: string): boolean {
  return roles.some(([role, pattern]) => role !== "alpha" && pattern.test(key));
}

/** Returns a function that finds the layer of a module. */
function finder(names: readonly LayerName[]): (module: string) => LayerName | undefined {
  const byName = new Map(names.map((each) => [each.name, each]));
  const byUnderscores = new Map(names.map((each) => [each.name.replaceAll(".", "_"), each]));
  return (module) =>
    byName.get(module) ??
    byName.get(module.replace(componentPrefix, "")) ??
    (underscorePrefix.test(module)
      ? byUnderscores.get(module.replace(underscorePrefix, ""))
      : undefined);
}

async function partOf(
  file: Weights,
  module: string,
  { down, up, alpha }: Module,
  { layer, shape, rows = [[0, shape[0]!]] }: LayerName,
  settings: LoraSettings,
): Promise<LoraPart> {
  const [rank = 0] = down!.shape;
  const outputs = rows.reduce((sum, [from, to]) => sum + to - from, 0);
  const inputs = sizeOf(shape.slice(1));
  if (rank < 1 || sizeOf(down!.shape) !== rank * inputs || down!.shape.length < 2) {
    throw misshaped(file, down!, `[rank, ${inputs}]`, layer, shape);
  }
  if (up!.shape[0] !== outputs || up!.shape[1] !== rank || sizeOf(up!.shape) !== outputs * rank) {
    throw misshaped(file, up!, `[${outputs}, ${rank}]`, layer, shape);
  }
  if (alpha && sizeOf(alpha.shape) !== 1) {
    throw new FormatError(
      `${file.name}: ${quote(alpha.name)} is ${formatShape(alpha.shape)}, but must be one number.`,
    );
  }
  const [a, b] = [await readFloat32(down!), await readFloat32(up!)];
  const told = alpha ? (await readFloat32(alpha)).data[0]! : alphaIn(settings, module, rank);
  if (!Number.isFinite(told)) {
    throw new FormatError(`${file.name}: the alpha of ${quote(module)} is not a finite number.`);
  }
  return {
    layer,
    rows,
    down: ndarray("float32", [rank, inputs], a.data),
    up: ndarray("float32", [outputs, rank], b.data),
    // In rank-stabilized LoRA (Kalajdzievski, 2023), the scale is divided by the square root of the rank.
    scale: told / (settings["use_rslora"] === true ? Math.sqrt(rank) : rank),
  };
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

/** Reads the settings in a file, without the component before each name. */
function settingsIn(file: Weights): LoraSettings {
  const text = file.metadata.get(settingsKey);
  if (text === undefined) return {};
  try {
    const content = JSON.parse(text) as unknown;
    if (typeof content === "object" && content !== null) {
      return Object.fromEntries(
        Object.entries(content).map(([key, value]) => [key.replace(/^transformer\./, ""), value]),
      );
    }
  } catch {
    // Reported below.
  }
  throw new FormatError(
    `${file.name}: its metadata ${quote(settingsKey)} is not a JSON object, so the alpha of the LoRA is unknown; save it again.`,
  );
}

/**
 * The alpha of a module as PEFT chooses it: the pattern that matches the end of the module's name, else the
 * common alpha, else the rank.
 */
function alphaIn(settings: LoraSettings, module: string, rank: number): number {
  const pattern = settings["alpha_pattern"];
  const own =
    typeof pattern === "object" && pattern !== null
      ? Object.entries(pattern).find(([end]) => module === end || module.endsWith(`.${end}`))
      : undefined;
  const alpha = own?.[1] ?? settings["lora_alpha"] ?? rank;
  return typeof alpha === "number" ? alpha : NaN;
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
 * Adds LoRA parts, each multiplied by its weight, to a weight [out, in, …kernel]. Sums are in double
 * precision.
 */
export function mergeLora(
  base: NdArray<"float32">,
  parts: readonly (LoraPart & { readonly weight: number })[],
): NdArray<"float32"> {
  const data = base.data.slice();
  const [outputs = 0] = base.shape;
  const inputs = sizeOf(base.shape.slice(1));
  const sources = parts.map(({ rows }) => sourcesOf(rows, outputs));
  const sum = new Float64Array(inputs);
  for (let row = 0; row < outputs; row++) {
    sum.fill(0);
    for (const [i, { down, up, scale, weight }] of parts.entries()) {
      const source = sources[i]![row]!;
      if (source < 0) continue;
      const [rank = 0] = down.shape;
      for (let k = 0; k < rank; k++) {
        const factor = up.data[source * rank + k]! * scale * weight;
        const start = k * inputs;
        for (let j = 0; j < inputs; j++) sum[j]! += factor * down.data[start + j]!;
      }
    }
    const start = row * inputs;
    for (let j = 0; j < inputs; j++) data[start + j]! += sum[j]!;
  }
  return { ...base, data };
}

/** For each row of a weight, the row of a LoRA's second matrix that applies to it; −1 for none. */
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
