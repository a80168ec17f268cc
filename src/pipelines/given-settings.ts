/** The settings of pictures that a drawing starts from: rows of the table in `settings.ts`. */
import * as z from "zod";
import { isPicture, type Picture } from "../pictures/picture.ts";
import { setting } from "./setting.ts";

const picture = z.custom<Picture>(isPicture);

/** The most reference pictures, each of which makes every step longer. */
export const MOST_REFERENCES = 10;

export const givenSettings = {
  /** Share of the steps by which a given image is drawn anew: above 0, which keeps it, up to 1. 0.8 by default, or 1 with a mask. */
  strength: setting({
    type: z.number().gt(0).max(1),
    expected: "a number above 0, which keeps the image, up to 1, which draws all of it anew",
    help: "share of the steps by which the image is noised and drawn anew: above 0, which keeps the image, up to 1, which draws all of it anew (default: 0.8, or 1 with a mask)",
    flags: [{ flag: "--strength <s>", parse: "number" }],
    default: ({ model, image, mask }) =>
      image && model.network.frames === undefined ? (mask ? 1 : 0.8) : undefined,
  }),
  /** Where a given image is drawn anew: a picture of its size, white on black. Everywhere by default. */
  mask: setting({
    type: picture,
    expected: "a picture of the image's size, white where the image is drawn anew",
    help: "where the image is drawn anew: white on black, of the image's size",
    flags: [{ flag: "--mask <file>", parse: "mask" }],
    aliases: ["maskImage", "mask_image"],
    unrecorded: true,
  }),
  /**
   * Pictures that the prompt speaks of, for models that edit, such as FLUX.2 [klein]: at most 10, of any size from 64×64 pixels on. Unless a size is
   * given, what is drawn has that of the first. None by default.
   */
  references: setting({
    type: z.array(picture).min(1).max(MOST_REFERENCES).readonly(),
    expected: `1 to ${MOST_REFERENCES} pictures in a list, each with width, height, channels (1 or 3) and one byte for each in pixels`,
    help: "pictures that the prompt speaks of, for models that edit, such as FLUX.2 [klein]; the first gives the size unless another is asked for",
    flags: [{ flag: "--reference <file...>", parse: "pictures" }],
    only: "continuous",
    unrecorded: true,
  }),
};
