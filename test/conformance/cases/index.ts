/** Every op's cases in one table, total over the ops: an op without cases does not compile. */
import type { OpName } from "../../../src/engine/graph/ops.ts";
import type { Case } from "../case.ts";
import { compositeCases } from "./composites.ts";
import { elementwiseCases } from "./elementwise.ts";
import { gradientConformance } from "./gradients.ts";
import { imageCases } from "./images.ts";
import { indexingCases } from "./indexing.ts";
import { leafCases } from "./leaves.ts";
import { normCases } from "./norms.ts";
import { productCases } from "./products.ts";
import { reductionCases } from "./reductions.ts";
import { shapeCases } from "./shapes.ts";

export const opCases: { readonly [K in OpName]: readonly Case[] } = {
  ...leafCases,
  ...elementwiseCases,
  ...reductionCases,
  ...productCases,
  ...shapeCases,
  ...indexingCases,
  ...imageCases,
  ...normCases,
};

export const allCases: readonly Case[] = [
  ...Object.values(opCases).flat(),
  ...gradientConformance,
  ...compositeCases,
];
