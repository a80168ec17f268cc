/**
 * Taps: intermediate tensors of a model, such as attention probabilities and the outputs of blocks, that a graph returns only
 * when they are asked for by name. Layers name them with `Params.tap`; without `withTaps` those calls do nothing.
 */
import { nearestNames, UsageError } from "../engine/errors.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { type Params, type ParamsRoot, pathPattern } from "./params.ts";

export interface Tapped {
  /** The same parameters; trace the model with these. */
  readonly params: ParamsRoot;
  /**
   * The tensors asked for, by name. Call this after the model has been traced.
   *
   * @throws UsageError when a pattern matches no tap of the model
   */
  readonly taps: () => Readonly<Record<string, Tensor>>;
}

/**
 * Asks for intermediate tensors of a model that is about to be traced.
 *
 * @param patterns names such as "blocks.0.attn.probabilities"; `*` stands for anything but dots, and `**` for anything
 * @example
 * const { params, taps } = withTaps(createParams(), ["blocks.*.attn.probabilities"]);
 * const output = dit(params, inputs, config);
 * const graph = graphOf({ output, ...taps() });
 */
export function withTaps(root: ParamsRoot, patterns: readonly string[]): Tapped {
  const offered = new Map<string, Tensor>();
  const view = (p: Params, path: string): Params => ({
    at: (part) => view(p.at(part), `${path}${part}.`),
    param: (name, shape, init) => p.param(name, shape, init),
    buffer: (name, value) => p.buffer(name, value),
    tapped: p.tapped || patterns.some((pattern) => mayMatchWithin(pattern, path)),
    tap(name, tensor) {
      p.tap(name, tensor);
      offered.set(path + name, tensor);
    },
  });
  return {
    params: { ...view(root, ""), declared: root.declared, buffers: root.buffers },
    taps: () => Object.fromEntries(patterns.flatMap((pattern) => chosen(pattern, offered))),
  };
}

/** The tensors whose names match a pattern. */
function chosen(
  pattern: string,
  offered: ReadonlyMap<string, Tensor>,
): (readonly [name: string, tensor: Tensor])[] {
  const matches = pathPattern(pattern);
  const found = [...offered].filter(([name]) => matches.test(name));
  if (found.length > 0) return found;
  const names = [...offered.keys()];
  const near = nearestNames(pattern, names);
  throw new UsageError(
    names.length === 0
      ? `The tap "${pattern}" matches nothing, because this model has no taps; ask for none.`
      : `The tap "${pattern}" matches no intermediate tensor of the model; use a name such as ${(near.length > 0 ? near : names.slice(0, 3)).join(", ")}.`,
  );
}

/** Returns true if a pattern may match a name in the scope `path`, judged by the text before its first `*`. */
function mayMatchWithin(pattern: string, path: string): boolean {
  const start = pattern.replace(/\*.*/, "");
  return start.startsWith(path) || path.startsWith(start);
}
