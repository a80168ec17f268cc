/** Weights in the safetensors format: the header, then every tensor. */
import { dtypes, ndarray, zeros } from "../../../src/engine/arrays/ndarray.ts";
import { openSafetensors, readTensor } from "../../../src/weights/safetensors/safetensors.ts";
import { safetensorsBytes } from "../../../src/weights/safetensors/write.ts";
import { bytesSource } from "../../../src/weights/sources/source.ts";
import { bytes, lengthFields } from "../mutations.ts";
import { headerValues } from "../safetensors-header.ts";
import type { OpenTarget } from "../target.ts";

const sound = [
  safetensorsBytes([]),
  safetensorsBytes([["a", ndarray("float32", [2], [1, 2])]], [["format", "pt"]]),
  safetensorsBytes(dtypes.map((dtype, i) => [`blocks.${i}.weight`, zeros(dtype, [i % 3, 2, 3])])),
];

export const open: OpenTarget = () => ({
  sound,
  mutations: [bytes, lengthFields, headerValues, headerValues],
  async read(input) {
    const { entries } = await openSafetensors(bytesSource(input, "f"));
    for (const entry of entries.values()) if (entry.dtype) await readTensor(entry);
  },
});
