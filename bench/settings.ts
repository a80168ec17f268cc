/** Options of `npm run bench` that change how ours computes and leave the peers as they are. */
import type { CacheMode } from "../src/diffusion/step-cache.ts";
import type { Computation } from "../src/pipelines/compute.ts";

export interface Settings {
  readonly compute: Computation;
  readonly cache: CacheMode;
}

/** Every number is computed, in float32. */
export const exactly: Settings = { compute: "float32", cache: "off" };

/** The sentence with which a suite refuses settings that it does not take; undefined if it takes them. */
export function refused(
  settings: Settings,
  takes: readonly (keyof Settings)[],
  suite: string,
): string | undefined {
  for (const name of ["compute", "cache"] as const) {
    if (settings[name] === exactly[name] || takes.includes(name)) continue;
    return `--${name} ${settings[name]} does not apply to the suite ${suite}; leave it out.`;
  }
  return undefined;
}

/** @throws RangeError that names the choices */
export function isOneOf<T extends string>(all: readonly T[], option: string, text: string): T {
  const found = all.find((choice) => choice === text);
  if (found !== undefined) return found;
  throw new RangeError(`--${option} ${text} is not known; choose from ${all.join(", ")}.`);
}

/** The settings as a part of a description: "with int8, cache fast"; empty if there are none. */
export function describeSettings({ compute, cache }: Settings): string {
  const parts = [
    ...(compute === exactly.compute ? [] : [compute]),
    ...(cache === exactly.cache ? [] : [`cache ${cache}`]),
  ];
  return parts.length === 0 ? "" : `; ours with ${parts.join(", ")}, peers in float32`;
}

export function isApproximate({ compute, cache }: Settings): boolean {
  return compute !== exactly.compute || cache !== exactly.cache;
}
