/** Opens the data set that a config names. */
import { closingOnFailure } from "../weights/sources/closing.ts";
import type { DataConfig } from "./config.ts";
import type { FramesShape } from "../pictures/picture.ts";
import { UsageError } from "../engine/errors.ts";
import type { DataSet } from "./dataset.ts";
import { animated } from "./motions.ts";
import { partOf } from "./part-node.ts";
import { picked, surveyed } from "./survey-node.ts";

/**
 * Opens a data set and fits its pictures, or the frames of its clips, to `shape`. With `frames`, examples are clips of any length.
 *
 * @throws UsageError if the data set does not exist or lacks what the config names, or has clips where pictures are wanted;
 *   FormatError if it is damaged
 */
export async function openData(config: DataConfig, shape: FramesShape): Promise<DataSet> {
  const motions = "motions" in config ? config.motions : undefined;
  if (shape.frames === undefined && (config.kind === "clips" || motions)) {
    throw new UsageError(
      `The data has ${motions ? "motions" : "clips"}, but the model learns still pictures; set picture.frames to the frames of a clip.`,
    );
  }
  const data = await open(config, shape);
  // The emoji set applies its limit itself.
  const some =
    config.kind === "emoji" || config.limit === undefined ? data : limited(data, config.limit);
  const moving = motions ? animated(some, motions, shape) : some;
  return closingOnFailure([data], async () => {
    const all = await surveyed(moving, "undescribed" in config ? config.undescribed : "keep");
    return config.part ? partOf(all, config.part) : all;
  });
}

/** Formats are imported on demand, because each brings a library of its own. */
async function open(config: DataConfig, shape: FramesShape): Promise<DataSet> {
  switch (config.kind) {
    case "images":
      return (await import("./formats/image-folder-node.ts")).openImageFolder(config, shape);
    case "clips":
      return (await import("./formats/clips-node.ts")).openClips(config, shape);
    case "idx":
      return (await import("./formats/idx-node.ts")).openIdx(config, shape);
    case "parquet":
      return (await import("./formats/parquet-node.ts")).openParquet(config, shape);
    case "tar":
      return (await import("./formats/tar-node.ts")).openTar(config, shape);
    case "emoji":
      return (await import("./formats/emoji/emoji-node.ts")).openEmoji(config, shape);
  }
}

/** Takes `limit` examples at even distances, because the first ones may all be of one class. */
function limited(data: DataSet, limit: number): DataSet {
  const count = Math.min(limit, data.count);
  return picked(
    data,
    Array.from({ length: count }, (_, i) => Math.floor((i * data.count) / count)),
  );
}
