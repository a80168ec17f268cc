/** The loop over the blocks of a transformer. */
import { concat, where } from "../engine/graph/functional.ts";
import { recompute } from "../engine/graph/recompute.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import type { Params } from "./params.ts";
import type { OpenRoute } from "./token-route.ts";

/** Tokens [B, N, C] that pass from block to block. Most models have one stream; MMDiT has one of text and one of image tokens. */
export type Streams = readonly [Tensor, ...Tensor[]];

/**
 * One block.
 *
 * @param opposite with `longSkips`, the output of the block as far from the start as this one is from the end
 */
export type Block<S extends Streams> = (p: Params, streams: S, index: number, opposite?: S) => S;

export interface BlockOptions {
  /** Computes each block again in the backward pass instead of keeping its activations; blocks with a tap inside keep them. */
  readonly recompute?: boolean | undefined;
  /** Batch elements that pass some blocks unchanged: where `rows` [B] bool is true, the blocks with these indices do nothing. */
  readonly skip?:
    | {
        /** The rows that pass, [B] bool. */
        readonly rows: Tensor;
        /** The blocks, from 0, that they pass unchanged. */
        readonly blocks: readonly number[];
      }
    | undefined;
  /** The tokens of the first stream that some blocks see. */
  readonly routed?: Pick<OpenRoute, "within" | "enter" | "leave"> | undefined;
  /** Gives each block of the second half the output of its counterpart in the first half, as a U-Net does. */
  readonly longSkips?: boolean | undefined;
  /** Taps of the blocks' outputs, one name a stream; "output" unless given. */
  readonly outputNames?: readonly string[];
}

/** The scopes `name.0`, `name.1`, … of a list of blocks. */
export function blockScopes(p: Params, name: string, depth: number): readonly Params[] {
  return Array.from({ length: depth }, (_, i) => p.at(`${name}.${i}`));
}

/**
 * Runs tokens through blocks, one block a scope, and returns the output of the last.
 *
 * @example
 * const [h] = runBlocks([tokens], blockScopes(p, "blocks", 12), (scope, [x]) => [block(scope, x)], { recompute: true });
 */
export function runBlocks<S extends Streams>(
  streams: S,
  scopes: readonly Params[],
  block: Block<S>,
  {
    recompute: again = false,
    skip,
    routed,
    longSkips,
    outputNames = ["output"],
  }: BlockOptions = {},
): S {
  const outputs: S[] = [];
  let h = streams;
  let beforeRoute: Tensor | undefined;
  for (const [i, scope] of scopes.entries()) {
    if (routed?.within(i) && !beforeRoute) {
      beforeRoute = h[0];
      h = [routed.enter(h[0]), ...h.slice(1)] as unknown as S;
    }
    const opposite =
      longSkips && 2 * i >= scopes.length ? outputs[scopes.length - 1 - i] : undefined;
    const run = (inputs: S, long?: S) => block(scope, inputs, i, long);
    const after = again && !scope.tapped ? recomputed(run, h, opposite) : run(h, opposite);
    h = skip?.blocks.includes(i) ? skipped(skip.rows, h, after) : after;
    for (const [stream, name] of outputNames.entries()) scope.tap(name, h[stream]!);
    if (routed && beforeRoute && !routed.within(i + 1)) {
      h = [routed.leave(beforeRoute, h[0]), ...h.slice(1)] as unknown as S;
      beforeRoute = undefined;
    }
    outputs.push(h);
  }
  return h;
}

/** A block behind one recompute node, whose only output holds all streams one after another. */
function recomputed<S extends Streams>(
  run: (streams: S, opposite?: S) => S,
  streams: S,
  opposite?: S,
): S {
  const count = streams.length;
  const joined = recompute([...streams, ...(opposite ?? [])], (...inner) => {
    const long = opposite && (inner.slice(count) as unknown as S);
    return concat(run(inner.slice(0, count) as unknown as S, long), 1);
  }); // [B, all N, C]
  if (count === 1) return [joined] as Streams as S;
  let start = 0;
  return streams.map((stream) => {
    const end = start + stream.size(1);
    const part = joined.slice(1, start, end);
    start = end;
    return part;
  }) as unknown as S;
}

/** Where `rows` [B] is true, the tokens from before a block. */
function skipped<S extends Streams>(rows: Tensor, before: S, after: S): S {
  const condition = rows.reshape([rows.dim(0), 1, 1]);
  return before.map((tokens, i) => where(condition, tokens, after[i]!)) as unknown as S;
}
