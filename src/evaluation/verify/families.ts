/**
 * Every family whose recordings can be verified, by the name that config.json calls it.
 */
import type { Family } from "./family.ts";
import { torchRng } from "./torch-rng.ts";

export const families: ReadonlyMap<string, Family> = new Map([["torch_rng", torchRng]]);
