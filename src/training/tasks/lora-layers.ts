/** The layers of a network under all names that LoRA files have for them. */
import type { LayerName, RowRange } from "../../weights/lora.ts";
import { diffusersDiTKeys } from "../../models/dit/dit.ts";
import { canDrop, type NetworkConfig, traceNetwork } from "../../models/index.ts";
import { diffusersMMDiTKeys, hasSwappedHalves } from "../../models/mmdit/checkpoint.ts";

/** What diffusers keeps apart and key maps have joined. */
const joined = /\.(to|add)_qkv(_proj)?$/;

/**
 * Every layer that LoRA can adapt, by its own name, and by diffusers', which knows parts of some layers and other orders of
 * their rows: linear ones, and the convolution of the patches.
 */
export function layerNames(network: NetworkConfig): readonly LayerName[] {
  const { params } = traceNetwork(network, { drop: canDrop(network) });
  return [...params.declared].flatMap(([key, { tensor }]): readonly LayerName[] => {
    if (!key.endsWith(".weight") || tensor.rank < 2) return [];
    const layer = layerOf(key);
    const own = { name: layer, layer, shape: tensor.shape as readonly number[] };
    const theirs = diffusersNames(network, key, own);
    return theirs[0]?.name === layer ? [own] : [own, ...theirs];
  });
}

/** The names under which others look for a layer: diffusers', which ComfyUI knows too, of networks that it has as they are here. */
export function publishedNames(network: NetworkConfig): (layer: string) => readonly LayerName[] {
  const names = layerNames(network);
  return (layer) => {
    const [own, ...theirs] = names.filter((each) => each.layer === layer);
    if (network.kind !== "mmdit" || theirs.length === 0) return [own!];
    const parts = theirs.filter(({ rows }) => rows);
    return parts.length > 0 ? parts : theirs;
  };
}

function diffusersNames(network: NetworkConfig, key: string, own: LayerName): LayerName[] {
  // Diffusers has no others.
  if (network.kind !== "dit" && network.kind !== "mmdit") return [own];
  const keys = network.kind === "dit" ? diffusersDiTKeys : diffusersMMDiTKeys;
  const name = layerOf(keys.keyOf(key));
  const { layer, shape } = own;
  const [rows = 0] = shape;
  if (network.kind === "mmdit" && hasSwappedHalves(name, network)) {
    const swapped: readonly RowRange[] = [
      [rows / 2, rows],
      [0, rows / 2],
    ];
    return [{ name, layer, shape, rows: swapped }];
  }
  if (!joined.test(name)) return [{ name, layer, shape }];
  const parts = ["q", "k", "v"].map((part, i) => ({
    name: name.replace(joined, `.$1_${part}$2`),
    layer,
    shape,
    rows: [[(i * rows) / 3, ((i + 1) * rows) / 3]] as const,
  }));
  return [{ name, layer, shape }, ...parts];
}

function layerOf(key: string): string {
  return key.replace(/\.weight$/, "");
}
