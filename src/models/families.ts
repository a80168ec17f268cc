/** The table of model families: one line each, and `registerFamily` for those from outside. */
import { didYouMean, quote, UsageError } from "../engine/errors.ts";
import { ddpmUNetFamily } from "./ddpm-unet/family.ts";
import { ditFamily } from "./dit/family.ts";
import type { NetworkFamily, NetworkFields } from "./family.ts";
import { fluxFamily } from "./flux/family.ts";
import { flux2Family } from "./flux2/family.ts";
import { latteFamily } from "./latte/family.ts";
import { miniT2IFamily } from "./minit2i/family.ts";
import { mmditFamily } from "./mmdit/family.ts";
import { paellaFamily } from "./paella/family.ts";
import { sanaFamily } from "./sana/family.ts";
import { uViTFamily } from "./u-vit/family.ts";
import { videoDiTFamily } from "./video-dit/family.ts";
import { wanFamily } from "./wan/family.ts";
import { zImageFamily } from "./z-image/family.ts";

/** The family of a training config that names none. */
export const defaultFamily: NetworkFamily = ditFamily;

const own = [
  defaultFamily,
  mmditFamily,
  uViTFamily,
  ddpmUNetFamily,
  paellaFamily,
  miniT2IFamily,
  latteFamily,
  wanFamily,
  videoDiTFamily,
  fluxFamily,
  flux2Family,
  zImageFamily,
  sanaFamily,
];

const table = new Map<string, NetworkFamily>(own.map((family) => [family.kind, family]));

/** Every family, by the kind that configs name. */
export const families: ReadonlyMap<string, NetworkFamily> = table;

/**
 * Adds a family from outside the package: afterwards configs may name its kind, and its models are trained, drawn with,
 * counted, exported and opened like any other. Register it before anything else is called that reads such a config.
 *
 * @throws UsageError when another family has its kind, or one of its presets' names
 */
export function registerFamily<C extends NetworkFields>(family: NetworkFamily<C>): void {
  const { kind, presets } = family;
  const known = table.get(kind);
  if (known === (family as NetworkFamily)) return;
  if (known) {
    throw new UsageError(`There is already a model family ${quote(kind)}; choose another kind.`);
  }
  const names = new Set([...table.values()].flatMap((each) => Object.keys(each.presets)));
  const taken = Object.keys(presets).find((name) => names.has(name));
  if (taken !== undefined) {
    throw new UsageError(
      `The model family ${quote(kind)} has a preset ${quote(taken)}, but another family has one of that name; choose another.`,
    );
  }
  table.set(kind, family);
}

/** @throws UsageError when no family has this kind */
export function familyOf({ kind }: { readonly kind: string }): NetworkFamily {
  const family = table.get(kind);
  if (family) return family;
  const hint = didYouMean(kind, [...table.keys()], "known families are");
  throw new UsageError(
    `There is no model family ${quote(kind)}; ${hint} A family from outside the package is added with registerFamily.`,
  );
}

/** Makes a value from the table, and makes it anew when a family has been added. */
export function fromFamilies<T>(make: (all: readonly NetworkFamily[]) => T): () => T {
  let made: { readonly value: T; readonly count: number } | undefined;
  return () => {
    if (made?.count !== table.size) {
      made = { value: make([...table.values()]), count: table.size };
    }
    return made.value;
  };
}
