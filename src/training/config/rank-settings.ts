/** The fields of a training config for several processes that train together. */
import * as z from "zod";

/** Fields of every `training`. */
export const rankFields = {
  /** Divides the optimizer among the processes that train together, each of which keeps a part of its state; false by default. */
  shardOptimizer: z.boolean().default(false),
  /** Each process trains alone for some steps before all of them meet (DiLoCo; Douillard et al., 2023), for slow links; unless given, in every step. */
  localSteps: z
    .strictObject({
      /** Steps between two meetings, from 1; 50 by default. */
      steps: z.int().min(1).default(50),
      /** The rate of the common step along the mean way of the processes, above 0; 0.7 by default. */
      rate: z.number().positive().default(0.7),
      /** Decay of the common step's Nesterov momentum, in [0, 1); 0.9 by default. */
      momentum: z.number().min(0).lt(1).default(0.9),
    })
    .optional(),
};
