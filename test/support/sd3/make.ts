/**
 * Writes a Stable Diffusion 3 with random weights: node scripts/run.mjs test/support/sd3/make.ts
 * folder|file|network PATH
 *
 * `folder` is in diffusers' layout and `file` a single file under Stability's names, both small and with the
 * same weights. `network` is the transformer of Stable Diffusion 3 medium in full size, for measurements: 8
 * GB, or 4 GB with --dtype float16.
 */
import { parseArgs } from "node:util";
import { byteSize, castArray, sizeOf } from "../../../src/engine/arrays/ndarray.ts";
import { normal, randomKey } from "../../../src/engine/random/random.ts";
import { writeFileAtomic } from "../../../src/weights/sources/atomic-node.ts";
import {
  mediumSD3,
  networkShapes,
  spreadOf,
  tinySD3,
  writeSD3File,
  writeSD3Folder,
} from "./parts.ts";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    seed: { type: "string", default: "1" },
    dtype: { type: "string", default: "float32" },
  },
});
const [what, path] = positionals;
const options = {
  seed: Number(values.seed),
  dtype: values.dtype as "float32" | "float16" | "bfloat16",
};
switch (path === undefined ? undefined : what) {
  case "folder":
    await writeSD3Folder(path!, tinySD3, options);
    break;
  case "file":
    await writeSD3File(path!, tinySD3, options);
    break;
  case "network":
    await writeFileAtomic(path!, fullNetwork());
    break;
  default:
    process.stderr.write("Usage: make.ts folder|file|network PATH [--seed N] [--dtype float16]\n");
    process.exitCode = 2;
}

/** Yields the file in pieces, so that it is never in memory as a whole. */
function* fullNetwork(): Generator<Uint8Array> {
  const { dtype, seed } = options;
  const tag = { float32: "F32", float16: "F16", bfloat16: "BF16" }[dtype];
  const shapes = [...networkShapes(mediumSD3)];
  let end = 0;
  const entries = shapes.map(([name, shape]) => {
    const start = end;
    end += byteSize(dtype) * sizeOf(shape);
    return [
      `model.diffusion_model.${name}`,
      { dtype: tag, shape, data_offsets: [start, end] },
    ] as const;
  });
  const text = JSON.stringify(Object.fromEntries(entries));
  const header = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = new DataView(new ArrayBuffer(8));
  length.setBigUint64(0, BigInt(header.length), true);
  yield new Uint8Array(length.buffer);
  yield header;

  // Repeats the same numbers, since drawing two billion takes long. No tensor is equal to another one,
  // because ONNX Runtime would merge them.
  const drawn = normal(randomKey(seed), [2 ** 20]);
  for (const [i, [name, shape]] of shapes.entries()) {
    const [mean, deviation] = spreadOf(name, shape);
    const data = drawn.data.map((value) => mean + (1 + i / 1000) * deviation * value);
    const { buffer, byteLength } = castArray({ ...drawn, data }, dtype).data;
    for (let left = byteSize(dtype) * sizeOf(shape); left > 0; left -= byteLength) {
      yield new Uint8Array(buffer, 0, Math.min(left, byteLength));
    }
  }
}
