import { describe, expect, it } from "vitest";
import { blockFormats, decodeBlocks } from "../../src/engine/arrays/blocks.ts";
import { castArray, type NdArray, ndarray } from "../../src/engine/arrays/ndarray.ts";
import { quantizeBlocks } from "../../src/engine/arrays/quantize.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { fork, normal, randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import {
  arrayWeight,
  blocksWeight,
  scaledWeight,
  type StoredWeight,
} from "../../src/engine/runtime/stored-weight.ts";

const [height, width] = [1000, 64];
const table = normal(fork(randomKey(1), "table"), [height, width]);
const bytesOf = ({ data }: NdArray) =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** A place from which bytes are fetched, with the ranges that were asked for. */
function place(content: Uint8Array) {
  const asked: [offset: number, length: number][] = [];
  const fetch = async (offset: number, length: number) => {
    asked.push([offset, length]);
    return content.slice(offset, offset + length);
  };
  return { asked, fetch };
}

const remote = (array: NdArray) => {
  const { asked, fetch } = place(bytesOf(array));
  const { dtype, shape } = array;
  const weight: StoredWeight = { kind: "remote", fetch, offset: 0, dtype, shape };
  return { asked, weight };
};

interface Stored {
  readonly weight: StoredWeight;
  readonly asked: readonly (readonly [offset: number, length: number])[];
  /** What the table holds in this form. */
  readonly values: NdArray;
  readonly rowBytes: number;
}

const forms: Readonly<Record<string, () => Stored>> = {
  float32: () => ({ ...remote(table), values: table, rowBytes: 4 * width }),
  bfloat16() {
    const values = castArray(table, "bfloat16");
    return { ...remote(values), values, rowBytes: 2 * width };
  },
  "8-bit floats with a scale"() {
    const numbers = castArray(table, "float8_e4m3fn");
    const { weight, asked } = remote(numbers);
    const doubled = castArray(numbers, "float32");
    const values = { ...doubled, data: doubled.data.map((x) => 2 * x) };
    const scale = arrayWeight(ndarray("float32", [], [2]));
    return { weight: scaledWeight(weight, scale), asked, values, rowBytes: width };
  },
  Q8_0() {
    const blocks = quantizeBlocks("Q8_0", table.data);
    const values = ndarray("float32", [height, width], new Float32Array(height * width));
    decodeBlocks("Q8_0", blocks, 0, values.data);
    const { asked, fetch } = place(blocks);
    const weight = blocksWeight({
      format: "Q8_0",
      first: 0,
      fetch,
      offset: 0,
      shape: [height, width],
    });
    const { bytes, numbers } = blockFormats.Q8_0;
    return { weight, asked, values, rowBytes: (width / numbers) * bytes };
  },
};

const ids = input("ids", [batch, 5], "int64");
const whole = parameter("table", [height, width]);
const looked = whole.gather(ids);
const given = ndarray("int64", [2, 5], [3, 999, 3, 4, 500, 0, 3, 3, 3, 998]);

describe("rows of a table that is fetched", () => {
  it.each(Object.keys(forms))(
    "are those of the table in %s, and no others are asked for",
    async (form) => {
      const { weight, asked, values, rowBytes } = forms[form]!();
      // The indices are read beside the lookup, too.
      const graph = graphOf({ rows: looked, first: ids.equal(3) });
      const program = await nodeBackend("cpu").compile(graph, { weights: () => weight });
      expect(asked).toEqual([]);
      const outputs = await program.run({ ids: given });
      await program.dispose();
      const all = castArray(values, "float32").data;
      const want = [...given.data].flatMap((id) => [
        ...all.subarray(Number(id) * width, (Number(id) + 1) * width),
      ]);
      expect([...(outputs["rows"]!.data as Float32Array)]).toEqual(want);
      expect([...outputs["first"]!.data]).toEqual([1, 0, 1, 0, 0, 0, 1, 1, 1, 0]);
      // 0 to 4, 500, 998 and 999, and 700 in the last run.
      const ranges = asked.map(([offset, length]) => [offset / rowBytes, length / rowBytes]);
      expect(ranges.toSorted(([a], [b]) => a! - b!)).toEqual([
        [0, 5],
        [500, 1],
        [998, 2],
      ]);
    },
  );

  it("are those of the whole table where a program reads that, too", async () => {
    const { weight, asked } = forms["float32"]!();
    const graph = graphOf({ rows: looked, sum: whole.sum([0]) });
    const program = await nodeBackend("cpu").compile(graph, { weights: () => weight });
    await program.run({ ids: given });
    await program.dispose();
    expect(asked).toEqual([[0, 4 * height * width]]);
  });

  it("must exist", async () => {
    const { weight } = forms["float32"]!();
    const program = await nodeBackend("cpu").compile(graphOf({ looked }), {
      weights: () => weight,
    });
    const wrong = ndarray("int64", [1, 5], [0, 1, 2, 3, 1000]);
    await expect(program.run({ ids: wrong })).rejects.toThrow(
      "The input ids holds 1000, but there are 1000 rows; give indices from 0 to 999.",
    );
    await expect(program.run({})).rejects.toThrow("The input ids is missing");
    await program.dispose();
  });
});
