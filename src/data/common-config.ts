/** What the configs of all data sets have in common. */
import { z } from "zod";

export const commonFields = {
  /** So many of the pictures, taken evenly from all of them; all unless given. */
  limit: z.int().min(1).optional(),
  /** Whether a picture is shown mirrored every other time. */
  flip: z.boolean().default(false),
};
