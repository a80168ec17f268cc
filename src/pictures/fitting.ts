/** How a picture of any size is fitted to the size of a network. */
import * as z from "zod";

const colour = z
  .string()
  .regex(
    /^(?:white|black|#[0-9a-f]{6})$/i,
    "a colour is white, black or six hexadecimal digits such as #ffcc00",
  );

/** The fields of a config that say how pictures are fitted. */
export const fittingFields = {
  /** `cover` fills the size and crops the rest evenly; `contain` shows the whole picture and pads the rest. */
  fit: z.enum(["cover", "contain"]).default("cover"),
  /** The colour behind transparent pixels, and around a contained picture. */
  background: colour.default("white"),
};

/** How a picture is fitted. */
export interface Fitting {
  readonly fit: "cover" | "contain";
  readonly background: string;
}
