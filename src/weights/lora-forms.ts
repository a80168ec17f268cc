/**
 * The forms in which files store what they add to a weight: LoRA's two matrices, and LyCORIS's products and full differences
 * (Yeh et al., 2024, "Navigating Text-To-Image Customization"). `loraForms` has a row for each.
 */
import { FormatError } from "../engine/errors.ts";
import { type NdArray, ndarray, sizeOf } from "../engine/arrays/ndarray.ts";
import { formatShape } from "../engine/graph/shape.ts";

/** A matrix whose rows are computed when they are needed, since a product takes much less memory than the weight. */
export interface Rows {
  readonly outputs: number;
  readonly inputs: number;
  /** Adds `factor` times a row to `sum`. */
  add(sum: Float64Array, row: number, factor: number): void;
  /** The two matrices whose product these rows are, [outputs, rank] and [rank, inputs]; absent for other forms. */
  readonly factors?: readonly [left: NdArray<"float32">, right: NdArray<"float32">];
}

/** `count` rows from row `start`. */
export function someRows(rows: Rows, start: number, count: number): Rows {
  const { inputs, factors } = rows;
  const [left, right] = factors ?? [];
  const [, rank = 0] = left?.shape ?? [];
  return {
    outputs: count,
    inputs,
    add: (sum, row, factor) => rows.add(sum, start + row, factor),
    ...(left &&
      right && {
        factors: [
          ndarray(
            "float32",
            [count, rank],
            left.data.subarray(start * rank, (start + count) * rank),
          ),
          right,
        ] as const,
      }),
  };
}

/** An array [outputs, …inputs] as it is. */
export function dense({ shape, data }: NdArray<"float32">): Rows {
  const [outputs = 1] = shape;
  const inputs = sizeOf(shape.slice(1));
  return {
    outputs,
    inputs,
    add(sum, row, factor) {
      const start = row * inputs;
      for (let j = 0; j < inputs; j++) sum[j]! += factor * data[start + j]!;
    },
  };
}

/** left [outputs, rank] · right [rank, …inputs] */
export function product(left: NdArray<"float32">, right: NdArray<"float32">): Rows {
  const [rank = 0] = right.shape;
  const rows = dense(right);
  return {
    outputs: left.shape[0] ?? 0,
    inputs: rows.inputs,
    factors: [
      ndarray("float32", [left.shape[0] ?? 0, rank], left.data),
      ndarray("float32", [rank, rows.inputs], right.data),
    ],
    add(sum, row, factor) {
      for (let k = 0; k < rank; k++) rows.add(sum, k, left.data[row * rank + k]! * factor);
    },
  };
}

/** The products of the elements of two matrices of one shape. */
function hadamard(a: Rows, b: Rows): Rows {
  return {
    outputs: a.outputs,
    inputs: a.inputs,
    add(sum, row, factor) {
      const [ofA, ofB] = [rowOf(a, row), rowOf(b, row)];
      for (const [j, value] of ofA.entries()) sum[j]! += factor * value * ofB[j]!;
    },
  };
}

function kronecker(a: Rows, b: Rows): Rows {
  return {
    outputs: a.outputs * b.outputs,
    inputs: a.inputs * b.inputs,
    add(sum, row, factor) {
      const ofA = rowOf(a, Math.floor(row / b.outputs));
      const ofB = rowOf(b, row % b.outputs);
      for (const [j, value] of ofA.entries()) {
        for (let k = 0; k < b.inputs; k++) sum[j * b.inputs + k]! += factor * value * ofB[k]!;
      }
    },
  };
}

function rowOf(rows: Rows, row: number): Float64Array {
  const values = new Float64Array(rows.inputs);
  rows.add(values, row, 1);
  return values;
}

/** What one tensor of a file is to a module. */
const roles = {
  down: /(?:\.lora_A(?:\.[^.]+)?|[._]lora[._]down|\.lora_linear_layer\.down)\.weight$/,
  up: /(?:\.lora_B(?:\.[^.]+)?|[._]lora[._]up|\.lora_linear_layer\.up)\.weight$/,
  hada1Left: /\.hada_w1_a$/,
  hada1Right: /\.hada_w1_b$/,
  hada2Left: /\.hada_w2_a$/,
  hada2Right: /\.hada_w2_b$/,
  lokr1: /\.lokr_w1$/,
  lokr1Left: /\.lokr_w1_a$/,
  lokr1Right: /\.lokr_w1_b$/,
  lokr2: /\.lokr_w2$/,
  lokr2Left: /\.lokr_w2_a$/,
  lokr2Right: /\.lokr_w2_b$/,
  difference: /\.diff$/,
  bias: /\.diff_b$/,
  alpha: /\.alpha$/,
} as const satisfies Readonly<Record<string, RegExp>>;

export type LoraRole = keyof typeof roles;

/** The role of a tensor and the module that it belongs to, as written in the file; undefined for other tensors. */
export function loraRole(
  key: string,
): { readonly role: LoraRole; readonly module: string } | undefined {
  for (const role of Object.keys(roles) as LoraRole[]) {
    if (roles[role].test(key)) return { role, module: key.replace(roles[role], "") };
  }
  return undefined;
}

/** Variants that cannot be read, by what their tensors are called. */
const unsupported: readonly (readonly [RegExp, string])[] = [
  [/\.(?:dora_scale|lora_magnitude_vector)\b/, "DoRA"],
  [/\.(?:hada_t[12]|lokr_t[12]|lora_mid)\b/, "the Tucker decomposition of a convolution"],
  [/\.(?:oft_|boft_)/, "OFT"],
  [/\.ia3_/, "IA³"],
  [/\bvera_/, "VeRA"],
  [/\.(?:w_norm|b_norm)$/, "a difference of a normalisation"],
  [/\.processor\.\w*lora\d?\./, "XLabs' form of LoRA"],
  [/\.lora_B(?:\.[^.]+)?\.bias$/, "a LoRA with biases"],
];

/** The name of an unsupported variant that a tensor belongs to. */
export function unsupportedVariant(key: string): string | undefined {
  return unsupported.find(([pattern]) => pattern.test(key))?.[1];
}

type Arrays = Readonly<Partial<Record<LoraRole, NdArray<"float32">>>>;

/** What a module's tensors add to its weight. */
export interface Delta {
  readonly rows: Rows;
  /** By which alpha is divided; undefined where the tensors show none, and are used as they are. */
  readonly rank?: number | undefined;
}

/** The roles that make up a form, and what it adds. */
const loraForms: readonly (readonly [readonly LoraRole[], (arrays: Arrays) => Delta])[] = [
  [["down", "up"], ({ down, up }) => ({ rows: product(up!, down!), rank: down!.shape[0] })],
  [
    ["hada1Left", "hada1Right", "hada2Left", "hada2Right"],
    (arrays) => {
      const [first, second] = [factorOf(arrays, "hada1"), factorOf(arrays, "hada2")];
      return { rows: hadamard(first.rows, second.rows), rank: first.rank };
    },
  ],
  ...[["lokr1"], ["lokr1Left", "lokr1Right"]].flatMap((outer) =>
    [["lokr2"], ["lokr2Left", "lokr2Right"]].map((inner) => {
      const build = (arrays: Arrays) => {
        const [first, second] = [factorOf(arrays, "lokr1"), factorOf(arrays, "lokr2")];
        return { rows: kronecker(first.rows, second.rows), rank: first.rank ?? second.rank };
      };
      return [[...outer, ...inner] as LoraRole[], build] as const;
    }),
  ),
  [["difference"], ({ difference }) => ({ rows: dense(difference!) })],
];

/** Returns true if a tensor of this role makes a file a LoRA; alone, alphas and biases are of many kinds of files. */
export function isOfWeight(role: LoraRole): boolean {
  return role !== "alpha" && role !== "bias";
}

/** The form of the tensors of a module; undefined if some of them are missing, or are of several forms. */
export function formOf(present: readonly LoraRole[]): ((arrays: Arrays) => Delta) | undefined {
  const own = present.filter(isOfWeight);
  const form = loraForms.find(
    ([needed]) => needed.length === own.length && needed.every((role) => own.includes(role)),
  );
  return form?.[1];
}

/** A matrix that is stored as it is, or as a product of two. */
function factorOf(arrays: Arrays, name: "hada1" | "hada2" | "lokr1" | "lokr2"): Delta {
  const all = arrays as Readonly<Record<string, NdArray<"float32"> | undefined>>;
  const [whole, left, right] = [all[name], all[`${name}Left`], all[`${name}Right`]];
  if (whole) return { rows: dense(whole) };
  const [rank] = right!.shape;
  if (left!.shape.length < 2 || left!.shape[1] !== rank || sizeOf(left!.shape.slice(2)) !== 1) {
    throw new FormatError(
      `matrices of ${formatShape(left!.shape)} and ${formatShape(right!.shape)} have no product`,
    );
  }
  return { rows: product(left!, right!), rank };
}
