/** The real emoji that drawings are compared with: every style of the captioned set, in the judge's size. */
import { dataSchema, type DataConfigOf } from "../data/config.ts";
import { emojiGroups, type EmojiStyle } from "../data/formats/emoji/captions.ts";
import {
  codePoints,
  drawEmoji,
  type EmojiPicture,
  isHeldOut,
  listEmojiPictures,
} from "../data/formats/emoji/emoji-node.ts";
import { joined } from "../engine/bytes.ts";
import { FormatError } from "../engine/errors.ts";
import { fork, randomKey } from "../engine/random/random.ts";
import { damaged } from "../evaluation/damage.ts";
import { evenIndices, type Features } from "../evaluation/distances.ts";
import type { Extractor } from "../evaluation/extractor.ts";
import { judgeBytes, judgeShape } from "../evaluation/judge.ts";
import { halved, nearestPictures } from "../evaluation/memorisation.ts";
import { accuracyOf, type Gallery, nearestNamesOf, rankOf } from "../evaluation/retrieval.ts";

/** The style that the judge was not fitted on, on which its accuracy is measured. */
export const unseenStyle: EmojiStyle = "emojione";

/** One real picture. */
export interface RealEmoji {
  /** Code points in lower case without variation selectors, by which answers are compared. */
  readonly hexcode: string;
  readonly label: string;
  readonly style: EmojiStyle;
  /** True if the emoji is held out from the training of generators. */
  readonly heldOut: boolean;
}

export interface RealEmojiSet {
  readonly pictures: readonly RealEmoji[];
  /** [count, 40, 40, 3] */
  readonly pixels: Uint8Array;
}

/** Components are parts of other emoji, and flags differ in little but their colours. */
const groups = emojiGroups.filter((group) => group !== "component" && group !== "flags");

/**
 * Lists the real emoji of every style without drawing them.
 *
 * @throws UsageError that names the packages which are not installed
 */
export function listRealEmoji(): Promise<readonly EmojiPicture[]> {
  const config = dataSchema.parse({ kind: "emoji", groups, split: "all" });
  return listEmojiPictures(config as DataConfigOf<"emoji">);
}

/** The number of pictures that are rasterised at once. */
const AT_ONCE = 16;

/**
 * Rasterises real emoji in the judge's size, and skips those that cannot be rasterised.
 *
 * @throws the signal's reason if aborted
 */
export async function realEmoji(
  list: readonly EmojiPicture[],
  progress: (done: number, of: number) => void,
  signal?: AbortSignal,
): Promise<RealEmojiSet> {
  const pictures: RealEmoji[] = [];
  const pixels: Uint8Array[] = [];
  for (let from = 0; from < list.length; from += AT_ONCE) {
    signal?.throwIfAborted();
    const some = list.slice(from, from + AT_ONCE);
    const drawn = await Promise.all(some.map(drawnOrNothing));
    for (const [i, own] of drawn.entries()) {
      if (!own) continue;
      const { hexcode, label, style } = some[i]!;
      pixels.push(own);
      const heldOut = isHeldOut(hexcode);
      pictures.push({ hexcode: codePoints(hexcode), label, style, heldOut });
    }
    progress(Math.min(list.length, from + AT_ONCE), list.length);
  }
  return { pictures, pixels: joined(pixels) };
}

async function drawnOrNothing(picture: EmojiPicture): Promise<Uint8Array | undefined> {
  try {
    return await drawEmoji(picture, judgeShape);
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** The judge's accuracy on real pictures, as shares in [0, 1]. */
export interface JudgeFigures {
  readonly name: string;
  /** Accuracy on pictures of the unseen style, with the other styles as the gallery. */
  readonly realTop1: number;
  readonly realTop5: number;
  readonly realStyle: EmojiStyle;
  readonly realPictures: number;
  /** Accuracy on blurred, shifted and noisy pictures of every style, with the undamaged ones as the gallery. */
  readonly damagedTop1: number;
  readonly damagedTop5: number;
  /** The share of damaged pictures whose nearest undamaged picture, by its pixels, has the same style. */
  readonly damagedStyle: number;
}

/** The number of damaged pictures: enough for an error of at most three percentage points. */
const DAMAGED = 500;

/** Measures the judge on real pictures. */
export async function judgeFigures(
  judge: Extractor,
  { pictures, pixels }: RealEmojiSet,
  seen: Features,
): Promise<JudgeFigures> {
  const gallery: Gallery = { features: seen, names: pictures.map(({ hexcode }) => hexcode) };
  const others = (index: number) => pictures[index]!.style !== unseenStyle;
  const elsewhere = new Set(gallery.names.filter((_, index) => others(index)));
  const real = accuracyOf(
    pictures.flatMap(({ hexcode, style }, i) => {
      // An emoji that no other style has cannot be found.
      if (style !== unseenStyle || !elsewhere.has(hexcode)) return [];
      return rankOf(nearestNamesOf(seen, i, gallery, 5, others), [hexcode]);
    }),
  );
  const count = Math.min(DAMAGED, pictures.length);
  const chosen = evenIndices(pictures.length, count);
  const worn = joined(
    chosen.map((index, i) => {
      const own = pixels.subarray(index * judgeBytes, (index + 1) * judgeBytes);
      return damaged(own, judgeShape, fork(randomKey(0), i));
    }),
  );
  const { features: judged } = await judge.extractFeatures(worn);
  const wornRanks = chosen.map((index, i) =>
    rankOf(nearestNamesOf(judged, i, gallery, 5), [gallery.names[index]!]),
  );
  const nearest = nearestPictures(halved(worn, judgeShape), halved(pixels, judgeShape));
  const right = chosen.filter(
    (index, i) => pictures[nearest[i]!.index]!.style === pictures[index]!.style,
  ).length;
  const after = accuracyOf(wornRanks);
  return {
    name: "emoji judge: oriented gradients and colours, projected by linear discriminants",
    realTop1: real.top1,
    realTop5: real.top5,
    realStyle: unseenStyle,
    realPictures: real.prompts,
    damagedTop1: after.top1,
    damagedTop5: after.top5,
    damagedStyle: right / count,
  };
}
