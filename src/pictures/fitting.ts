/** How pictures of any size are brought to the size of a network. */
import { z } from "zod";

const colour = z
  .string()
  .regex(
    /^(?:white|black|#[0-9a-f]{6})$/i,
    "a colour is white, black or six hexadecimal digits such as #ffcc00",
  );

/** How a picture of any size becomes one of the size asked for. */
export const fittingFields = {
  /** `cover` fills the size and cuts off what is left over on both sides; `contain` shows all and fills the rest. */
  fit: z.enum(["cover", "contain"]).default("cover"),
  /** What shows through transparent pixels, and beside a contained picture. */
  background: colour.default("white"),
};

/** As `fittingFields` settles it. */
export interface Fitting {
  readonly fit: "cover" | "contain";
  readonly background: string;
}
