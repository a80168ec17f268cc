/** Training on a part of the patches, where a config asks for it (`training.routing` or `training.masked`); see nn/token-route.ts. */
import { type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { UsageError } from "../../engine/errors.ts";
import { input } from "../../engine/graph/functional.ts";
import { batch } from "../../engine/graph/shape.ts";
import { fork, permutation, type RandomKey } from "../../engine/random/random.ts";
import { familyOf } from "../../models/families.ts";
import type { NetworkConfig } from "../../models/network.ts";
import { createParams, normal, type ParamsRoot } from "../../nn/params.ts";
import type { TokenRoute } from "../../nn/token-route.ts";
import type { TrainingConfig } from "../config/config.ts";

export interface Routing {
  readonly route: TokenRoute;
  /** The patches that each example keeps, as the input `routes` of the loss. */
  inputs(count: number, key: RandomKey): Record<string, NdArray>;
  /** The token that stands for masked patches, which is trained beside the network and is no part of the model. */
  readonly own: ParamsRoot;
}

/**
 * The route that a config asks for; undefined if every block sees every patch.
 *
 * @throws UsageError when the network cannot leave patches out, or has no such blocks
 */
export function configuredRouting(
  {
    routing,
    masked,
    features,
  }: Pick<TrainingConfig["training"], "routing" | "masked" | "features">,
  network: NetworkConfig,
): Routing | undefined {
  if (routing && masked) {
    throw new UsageError(
      "training.routing and training.masked both leave patches out; give one of them.",
    );
  }
  const name = routing ? "training.routing" : "training.masked";
  const asked = routing ?? masked;
  if (!asked || asked.share === 0) return undefined;
  const depth = blocksOf(network, name);
  const [from, to] = routing
    ? [routing.from, routing.to ?? depth - 1]
    : [0, masked!.blocks ?? Math.ceil(depth / 2)];
  if (from >= to || to > depth) {
    throw new UsageError(
      routing
        ? `training.routing goes around the blocks from ${from} up to ${to}, but the network has ${depth}; give 0 ≤ from < to ≤ ${depth}.`
        : `training.masked.blocks is ${to}, but the network has ${depth} blocks; give a number from 1 to ${depth}.`,
    );
  }
  if (features && features.alignment > 0 && from <= features.block && features.block < to) {
    throw new UsageError(
      `training.features.block is ${features.block}, a block that does not see all patches because of ${name}; align one before ${from} or from ${to} on.`,
    );
  }
  const patches = familyOf(network).patches(network, network.size);
  const count = Math.max(1, Math.round((1 - asked.share) * patches));
  const own = createParams();
  const filler = masked && own.param("mask_token", [network["hidden"] as number], normal(0.02));
  return {
    own,
    route: { kept: input("routes", [batch, count], "int64"), from, to, filler },
    inputs: (rows, key) => ({ routes: keptPatches(rows, count, patches, fork(key, "routes")) }),
  };
}

/** The number of blocks of a network that can leave patches out. */
function blocksOf(network: NetworkConfig, name: string): number {
  const { kind } = network;
  if (!familyOf(network).routesTokens) {
    throw new UsageError(
      `${name} is for networks of the kind dit, and the model is of the kind ${kind}; leave it out.`,
    );
  }
  const mixing = (network["attention"] as { readonly kind: string } | undefined)?.kind ?? "full";
  if (mixing === "window" || mixing === "tile" || mixing === "compressed") {
    throw new UsageError(
      `${name} leaves patches out, which attention of the kind ${mixing} needs as a whole grid; choose attention of the kind full or linear, or leave it out.`,
    );
  }
  return network["depth"] as number;
}

/** So many of the patches of each example, each set as likely as any other, in their order: [rows, count]. */
function keptPatches(rows: number, count: number, patches: number, key: RandomKey): NdArray {
  const kept = new BigInt64Array(rows * count);
  for (let row = 0; row < rows; row++) {
    const chosen = permutation(fork(key, row), patches).slice(0, count).sort();
    kept.set(BigInt64Array.from(chosen, BigInt), row * count);
  }
  return ndarray("int64", [rows, count], kept);
}
