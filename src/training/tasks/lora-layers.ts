/** The layers of a network under every name that LoRA files have for them. */
import { familyOf } from "../../models/families.ts";
import { canDrop, type NetworkConfig, traceNetwork } from "../../models/network.ts";
import { attentionAndMlp } from "../../nn/lora.ts";
import type { LayerName, RowRange } from "../../weights/lora.ts";

/** The layers that a LoRA adapts unless its config names others. */
export function loraTargets(network: NetworkConfig): readonly string[] {
  return familyOf(network).training?.loraTargets ?? attentionAndMlp;
}

/** Layers that diffusers keeps apart and key maps have joined. */
const joined = /\.(to|add)_qkv(_proj)?$/;

/**
 * Every layer that a LoRA can adapt, which are the linear ones and the convolution of the patches: by its own name and by
 * diffusers', which stores parts of some layers apart and the rows of some in another order, or by that of single files, which join
 * some layers.
 */
export function layerNames(network: NetworkConfig): readonly LayerName[] {
  const { params } = traceNetwork(network, { drop: canDrop(network) });
  return [...params.declared].flatMap(([key, { tensor }]): readonly LayerName[] => {
    if (!key.endsWith(".weight") || tensor.rank < 2) return [];
    const layer = layerOf(key);
    const own = { name: layer, layer, shape: tensor.shape as readonly number[] };
    const theirs = diffusersNames(network, key, own);
    const inFiles = familyOf(network).original?.layerName?.(layer);
    const whole = { index: 0, of: 1 };
    const others = inFiles && inFiles.name !== layer ? [{ ...own, part: whole, ...inFiles }] : [];
    return theirs[0]?.name === layer ? [own, ...others] : [own, ...theirs, ...others];
  });
}

/**
 * The names under which a LoRA file is written: diffusers', which ComfyUI knows too, where others look for these; else the
 * network's own.
 */
export function publishedNames(network: NetworkConfig): (layer: string) => readonly LayerName[] {
  const names = layerNames(network);
  const published = familyOf(network).diffusers?.namesLora ?? false;
  return (layer) => {
    const [own, ...theirs] = names.filter((each) => each.layer === layer && !each.part);
    if (!published || theirs.length === 0) return [own!];
    const parts = theirs.filter(({ rows }) => rows);
    return parts.length > 0 ? parts : theirs;
  };
}

function diffusersNames(network: NetworkConfig, key: string, own: LayerName): LayerName[] {
  const { diffusers } = familyOf(network);
  if (!diffusers) return [own];
  const name = layerOf(diffusers.keys.keyOf(key));
  const { layer, shape } = own;
  const [rows = 0] = shape;
  if (diffusers.swapsHalves?.(name, network)) {
    const swapped: readonly RowRange[] = [
      [rows / 2, rows],
      [0, rows / 2],
    ];
    return [{ name, layer, shape, rows: swapped }];
  }
  const parts = diffusers.parts?.(name, network);
  if (parts) {
    const named = parts.map((part) => ({ name: part.name, layer, shape, rows: [part.rows] }));
    return [{ name, layer, shape }, ...named];
  }
  if (!joined.test(name)) return [{ name, layer, shape }];
  const projections = ["q", "k", "v"].map((part, i) => ({
    name: name.replace(joined, `.$1_${part}$2`),
    layer,
    shape,
    rows: [[(i * rows) / 3, ((i + 1) * rows) / 3]] as const,
  }));
  return [{ name, layer, shape }, ...projections];
}

function layerOf(key: string): string {
  return key.replace(/\.weight$/, "");
}
