/** What sample grids are of. */
import { UsageError } from "../../engine/errors.ts";
import { nearestNames } from "../../engine/messages.ts";
import type { NetworkConfig } from "../../models/network.ts";
import { quote } from "../../engine/messages.ts";

/**
 * Refuses what could not be drawn, before anything is trained.
 *
 * @param of prompts, or classes by name, in letters of either case, or by number
 * @throws UsageError when one is none that the network is told
 */
export function requireKnownSamples(
  of: readonly string[] = [],
  {
    network: { condition },
    classNames,
  }: {
    readonly network: Pick<NetworkConfig, "condition">;
    readonly classNames: readonly string[] | undefined;
  },
): void {
  const [first] = of;
  if (first === undefined || condition.kind === "text") return;
  if (condition.kind === "none") {
    throw new UsageError(
      `samples.of has ${quote(first)}, but the model draws nothing in particular; leave it out.`,
    );
  }
  const names = classNames ?? [];
  const known = new Set(names.map((name) => name.toLowerCase()));
  const isNumber = (name: string) => /^\d+$/.test(name) && Number(name) < condition.classes;
  const wrong = of.find((name) => !known.has(name.trim().toLowerCase()) && !isNumber(name.trim()));
  if (wrong === undefined) return;
  const nearest = nearestNames(wrong, names);
  throw new UsageError(
    `samples.of has ${quote(wrong)}, which is no class of the data; ${nearest.length > 0 ? `did you mean ${nearest.join(" or ")}?` : `it has ${names.slice(0, 8).join(", ")}${names.length > 8 ? ", …" : ""}.`}`,
  );
}
