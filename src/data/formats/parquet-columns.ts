/**
 * Finds the columns with pictures, captions and classes of a parquet file by their types and by Hugging
 * Face's metadata.
 */
import { tryJson } from "../../engine/bytes.ts";
import { type FileMetaData, parquetSchema, type SchemaTree } from "hyparquet";
import * as z from "zod";
import { UsageError } from "../../engine/errors.ts";
import { captionNames, chooseColumn, labelNames } from "./columns.ts";

export interface ParquetColumns {
  readonly image: string;
  readonly caption: string | undefined;
  readonly label: string | undefined;
  /** Names of the classes, if the metadata has them. */
  readonly classes: readonly string[] | undefined;
}

/** The columns that a config names. */
interface Wanted {
  readonly image?: string | undefined;
  readonly caption?: string | false | undefined;
  readonly label?: string | false | undefined;
}

const feature = z
  .looseObject({ _type: z.string(), names: z.array(z.string()).optional() })
  .transform(({ _type: type, names }) => ({ type, names }));

const huggingFace = z.looseObject({
  info: z.looseObject({ features: z.record(z.string(), z.unknown()) }),
});

/**
 * Chooses the columns of a file.
 *
 * @param where how errors name the file
 * @throws UsageError if a column does not exist, or several are possible and the config names none
 */
export function chooseColumns(
  metadata: FileMetaData,
  wanted: Wanted,
  where: string,
): ParquetColumns {
  const columns = parquetSchema(metadata).children;
  const names = columns.map(({ element }) => element.name);
  const features = featuresOf(metadata);
  const ofType = (type: string) => names.filter((name) => features.get(name)?.type === type);

  const pictures = ofType("Image");
  const image = chooseColumn(
    "image",
    wanted.image,
    pictures.length > 0
      ? pictures
      : columns.filter(holdsPictures).map(({ element }) => element.name),
    names,
    where,
  );
  if (image === undefined) {
    throw new UsageError(
      `${where} has no column of pictures; it has ${names.slice(0, 8).join(", ") || "none at all"}; say with \`image\` which one to use.`,
    );
  }
  const classLabels = ofType("ClassLabel");
  const label = chooseColumn(
    "label",
    wanted.label,
    classLabels.length > 0 ? classLabels : labelNames,
    names,
    where,
  );
  return {
    image,
    caption: chooseColumn("caption", wanted.caption, captionNames, names, where),
    label,
    classes: label === undefined ? undefined : features.get(label)?.names,
  };
}

/** Accepts a column of bytes, or Hugging Face's struct of bytes and a path. */
function holdsPictures({ element, children }: SchemaTree): boolean {
  if (children.length > 0) {
    return children.some(
      ({ element: { name, type } }) => name === "bytes" && type === "BYTE_ARRAY",
    );
  }
  const isText = element.converted_type !== undefined || element.logical_type !== undefined;
  return element.type === "BYTE_ARRAY" && !isText;
}

function featuresOf(metadata: FileMetaData): ReadonlyMap<string, z.output<typeof feature>> {
  const text = metadata.key_value_metadata?.find(({ key }) => key === "huggingface")?.value;
  const parsed = huggingFace.safeParse(text === undefined ? undefined : tryJson(text));
  // Files by other writers have no such metadata; their columns are found by type.
  const features = parsed.success ? Object.entries(parsed.data.info.features) : [];
  return new Map(
    features.flatMap(([name, value]) => {
      const { data } = feature.safeParse(value);
      return data ? [[name, data] as const] : [];
    }),
  );
}
