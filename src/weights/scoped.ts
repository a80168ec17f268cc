/** One model of a file that holds several. */
import { type Weights, weightsOf } from "./safetensors/safetensors.ts";

/** The tensors whose names begin with a prefix, by the rest of their names; closing it closes the file. */
export function weightsUnder(weights: Weights, prefix: string): Weights {
  const entries = [...weights.entries].flatMap(([name, entry]) =>
    name.startsWith(prefix) ? [[name.slice(prefix.length), entry] as const] : [],
  );
  return weightsOf(weights.name, weights.metadata, new Map(entries), () => weights.close());
}
