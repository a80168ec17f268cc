/** Parquet files of pictures with labels and captions. */
import { parquetWriteBuffer } from "hyparquet-writer";
import { colour, dataReader } from "../data.ts";
import { bytes, lengthFields } from "../mutations.ts";
import type { OpenTarget } from "../target.ts";

const features = {
  image: { _type: "Image" },
  label: { names: ["cat", "dog"], _type: "ClassLabel" },
  text: { dtype: "string", _type: "Value" },
};

async function file(codec: "SNAPPY" | "UNCOMPRESSED"): Promise<Uint8Array> {
  const pictures = await Promise.all([1, 2, 3].map((red) => colour(red)));
  return new Uint8Array(
    parquetWriteBuffer({
      codec,
      schema: [
        { name: "schema", num_children: 3 },
        { name: "image", repetition_type: "OPTIONAL", num_children: 2 },
        { name: "bytes", type: "BYTE_ARRAY", repetition_type: "OPTIONAL" },
        { name: "path", type: "BYTE_ARRAY", converted_type: "UTF8", repetition_type: "OPTIONAL" },
        { name: "label", type: "INT64", repetition_type: "OPTIONAL" },
        { name: "text", type: "BYTE_ARRAY", converted_type: "UTF8", repetition_type: "OPTIONAL" },
      ],
      columnData: [
        {
          name: "image",
          data: pictures.map((content, i) => ({ bytes: content, path: `${i}.png` })),
        },
        { name: "label", data: [0n, 1n, 0n] },
        { name: "text", data: ["a cat", "a dog", "another cat"] },
      ],
      kvMetadata: [{ key: "huggingface", value: JSON.stringify({ info: { features } }) }],
    }),
  );
}

export const open: OpenTarget = async (folder) => ({
  sound: [await file("UNCOMPRESSED"), await file("SNAPPY")],
  mutations: [bytes, lengthFields],
  read: dataReader(folder, "shard.parquet", { kind: "parquet" }),
});
