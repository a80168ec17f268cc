/**
 * A structural hash of a graph: equal for graphs that compute the same in the same way, whenever
 * and in whatever order their nodes were made. It keys the cache of compiled programs.
 */
import { type Graph, is } from "../graph/graph.ts";
import type { NdArray } from "../arrays/ndarray.ts";
import type { Node, Tensor } from "../graph/tensor.ts";

/**
 * 128 bits as 32 hexadecimal digits, from ops, attributes, contents of constants, names of leaves
 * and names of outputs. Parameter paths of errors and the order of outputs do not count.
 */
export function hashGraph(graph: Graph): string {
  const hasher = createHasher();
  absorbGraph(hasher, graph.outputs, []);
  return hasher.digest();
}

/** Takes in everything behind the outputs; tensors are numbered in the order of a depth-first walk. */
function absorbGraph(
  hasher: Hasher,
  outputs: Readonly<Record<string, Tensor>>,
  blockInputs: readonly Tensor[],
): void {
  const numbers = new Map<Tensor, number>();
  for (const tensor of blockInputs) numbers.set(tensor, numbers.size);
  const names = Object.keys(outputs).sort();
  for (const node of postOrder(
    names.map((name) => outputs[name]!),
    numbers,
  )) {
    absorbNode(hasher, node, numbers);
    for (const output of node.outputs) numbers.set(output, numbers.size);
  }
  for (const name of names) {
    hasher.text(name);
    hasher.word(numbers.get(outputs[name]!)!);
  }
  hasher.word(names.length);
}

function absorbNode(hasher: Hasher, node: Node, numbers: ReadonlyMap<Tensor, number>): void {
  hasher.text(node.op);
  hasher.word(node.inputs.length);
  for (const tensor of node.inputs) hasher.word(numbers.get(tensor)!);
  if (is(node, "constant")) absorbArray(hasher, node.attributes.value);
  else if (is(node, "recompute")) {
    const { body } = node.attributes;
    absorbGraph(hasher, body.outputs, body.inputs);
  } else hasher.text(canonical(node.attributes));
}

function absorbArray(hasher: Hasher, { dtype, shape, data }: NdArray): void {
  hasher.text(dtype);
  hasher.text(canonical(shape));
  hasher.bytes(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}

/** An attribute as text, one for each value; JSON would write NaN, infinity and −0 like other values. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (typeof value === "number") return Object.is(value, -0) ? "-0" : String(value);
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, entry]) => `${key}:${canonical(entry)}`).join()}}`;
}

/** Nodes behind tensors, inputs first, in the order in which a walk along the inputs meets them. */
function postOrder(tensors: readonly Tensor[], known: ReadonlyMap<Tensor, number>): Node[] {
  const order = new Set<Node>();
  const stack = tensors.toReversed().map((tensor) => ({ tensor, ready: false }));
  while (stack.length > 0) {
    const { tensor, ready } = stack.pop()!;
    if (known.has(tensor) || order.has(tensor.node)) continue;
    if (ready) {
      order.add(tensor.node);
      continue;
    }
    stack.push({ tensor, ready: true });
    for (const input of tensor.node.inputs.toReversed())
      stack.push({ tensor: input, ready: false });
  }
  return [...order];
}

interface Hasher {
  word(value: number): void;
  text(value: string): void;
  bytes(values: Uint8Array): void;
  /** 32 hexadecimal digits; call once, at the end. */
  digest(): string;
}

const rotate = (x: number, by: number) => (x << by) | (x >>> (32 - by));

/** Spreads every bit of a word over all of it. */
function avalanche(word: number): number {
  let mixed = word;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}

/** MurmurHash3 of Austin Appleby (public domain) for 128 bits in 32-bit words: fast, not cryptographic. */
function createHasher(): Hasher {
  let [h1, h2, h3, h4] = [0, 0, 0, 0];
  const [c1, c2, c3, c4] = [0x239b961b, 0xab0e9789, 0x38b34ae5, 0xa1e38b93];
  const block = new Int32Array(4);
  let count = 0;

  const mix = () => {
    // By index: destructuring would go through an iterator.
    const [k1, k2, k3, k4] = [block[0]!, block[1]!, block[2]!, block[3]!];
    h1 ^= Math.imul(rotate(Math.imul(k1, c1), 15), c2);
    h1 = (Math.imul(rotate(h1, 19) + h2, 5) + 0x561ccd1b) | 0;
    h2 ^= Math.imul(rotate(Math.imul(k2, c2), 16), c3);
    h2 = (Math.imul(rotate(h2, 17) + h3, 5) + 0x0bcaa747) | 0;
    h3 ^= Math.imul(rotate(Math.imul(k3, c3), 17), c4);
    h3 = (Math.imul(rotate(h3, 15) + h4, 5) + 0x96cd1c35) | 0;
    h4 ^= Math.imul(rotate(Math.imul(k4, c4), 18), c1);
    h4 = (Math.imul(rotate(h4, 13) + h1, 5) + 0x32ac3b17) | 0;
  };
  const word = (value: number) => {
    block[count++ & 3] = value;
    if ((count & 3) === 0) mix();
  };

  return {
    word,
    text(value) {
      // The length comes first, so that no two sequences of texts run into the same words.
      word(value.length);
      for (let i = 0; i < value.length; i += 2) {
        word(value.charCodeAt(i) | (value.charCodeAt(i + 1) << 16));
      }
    },
    bytes(values) {
      word(values.length);
      const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
      const whole = values.length & ~3;
      for (let i = 0; i < whole; i += 4) word(view.getInt32(i, true));
      let rest = 0;
      for (let i = whole; i < values.length; i++) rest = (rest << 8) | values[i]!;
      word(rest);
    },
    digest() {
      const length = count;
      for (let rest = -count & 3; rest > 0; rest--) word(0);
      h1 ^= length;
      h2 ^= length;
      h3 ^= length;
      h4 ^= length;
      for (let round = 0; round < 2; round++) {
        h1 = (h1 + h2 + h3 + h4) | 0;
        h2 = (h2 + h1) | 0;
        h3 = (h3 + h1) | 0;
        h4 = (h4 + h1) | 0;
        if (round === 0)
          [h1, h2, h3, h4] = [avalanche(h1), avalanche(h2), avalanche(h3), avalanche(h4)];
      }
      return [h1, h2, h3, h4].map((h) => (h >>> 0).toString(16).padStart(8, "0")).join("");
    },
  };
}
