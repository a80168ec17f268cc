/** LoRA files, and LoHa, LoKr and full differences, read for a network and merged into its weights. */
import { type NdArray, zeros } from "../../../src/engine/arrays/ndarray.ts";
import { layerNames } from "../../../src/training/tasks/lora-layers.ts";
import { mergeLora, readLora } from "../../../src/weights/lora.ts";
import { openSafetensors } from "../../../src/weights/safetensors/safetensors.ts";
import { safetensorsBytes } from "../../../src/weights/safetensors/write.ts";
import { bytesSource } from "../../../src/weights/sources/source.ts";
import { randomArray } from "../../../test/support/arrays.ts";
import { tinyNetwork } from "../../../test/support/tiny-model.ts";
import { bytes } from "../mutations.ts";
import { headerValues } from "../safetensors-header.ts";
import type { OpenTarget } from "../target.ts";

const names = layerNames(tinyNetwork);
const shapes = new Map(names.map(({ layer, shape }) => [layer, shape]));
const layer = "blocks.0.attn.proj";

function file(
  tensors: Readonly<Record<string, readonly number[]>>,
  metadata: Readonly<Record<string, string>> = {},
) {
  const arrays = Object.entries(tensors).map(([name, shape], i): [string, NdArray] => [
    name,
    randomArray(i, "float32", shape),
  ]);
  return safetensorsBytes(arrays, Object.entries(metadata));
}

const settings = {
  "transformer.r": 2,
  "transformer.lora_alpha": 4,
  "transformer.alpha_pattern": { "attn.*": 8 },
  "transformer.use_rslora": true,
};

const sound = [
  file(
    {
      [`transformer.${layer}.lora_A.weight`]: [2, 32],
      [`transformer.${layer}.lora_B.weight`]: [32, 2],
    },
    { lora_adapter_metadata: JSON.stringify(settings) },
  ),
  file({
    [`${layer}.lora_down.weight`]: [2, 32],
    [`${layer}.lora_up.weight`]: [32, 2],
    [`${layer}.alpha`]: [],
  }),
  file({
    [`${layer}.hada_w1_a`]: [32, 2],
    [`${layer}.hada_w1_b`]: [2, 32],
    [`${layer}.hada_w2_a`]: [32, 2],
    [`${layer}.hada_w2_b`]: [2, 32],
  }),
  file({
    [`${layer}.lokr_w1`]: [4, 4],
    [`${layer}.lokr_w2_a`]: [8, 2],
    [`${layer}.lokr_w2_b`]: [2, 8],
  }),
  file({ [`${layer}.diff`]: [32, 32], [`${layer}.diff_b`]: [32] }),
];

export const open: OpenTarget = () => ({
  sound,
  mutations: [bytes, headerValues, headerValues],
  async read(input) {
    const { parts } = await readLora(await openSafetensors(bytesSource(input, "f")), names, "tiny");
    for (const part of parts) {
      const whole = shapes.get(part.layer)!;
      const base = zeros("float32", part.parameter === "bias" ? [whole[0]!] : whole);
      mergeLora(base, [{ ...part, weight: 1 }]);
    }
  },
});
