/** Checks that configs can be compared, and gives each of them the same training budget. */
import { quote, UsageError } from "../engine/errors.ts";
import { flattened, type TrainingConfig } from "../training/config/config.ts";
import type { readTrainingConfig } from "../training/config/config-file.ts";

/** A config, with its name in messages and tables. */
export interface Contender {
  readonly name: string;
  readonly file: string;
  readonly config: TrainingConfig;
}

/** The length of each model's training, in minutes or Tflop. */
export type Budget = { readonly minutes: number } | { readonly compute: number };

/**
 * Replaces the training budget of each config by the common one.
 *
 * @throws UsageError if the configs cannot be compared, or `budget` does not have exactly one field
 */
export function contendersOf(
  configs: readonly (Omit<Contender, "config"> & {
    readonly config: ReturnType<typeof readTrainingConfig>;
  })[],
  budget: { readonly minutes?: number | undefined; readonly compute?: number | undefined },
): readonly [Contender, ...Contender[]] {
  const given = budgetOf(budget);
  if (configs.length < 2) {
    throw new UsageError(
      `${configs.length === 0 ? "No config was" : `Only ${configs[0]!.file} was`} given, but a comparison needs at least two; add another.`,
    );
  }
  const contenders = configs.map(({ name, file, config }) => {
    if ("lora" in config || "autoencoder" in config) {
      throw new UsageError(
        `${file} trains ${"lora" in config ? "a LoRA" : "an autoencoder"}, which cannot draw by itself; compare configs of whole models.`,
      );
    }
    const none = { steps: undefined, minutes: undefined, compute: undefined };
    const training = { ...config.training, ...none, ...given };
    // The comparison draws samples of all models side by side.
    const samples = { ...config.samples, grids: 0 };
    return { name, file, config: { ...config, name, samples, training } };
  });
  const [first, ...others] = contenders as [Contender, ...Contender[]];
  for (const [i, { name, file }] of contenders.entries()) {
    // The name becomes a folder beside the files of the comparison.
    if (!/^[\p{L}\p{N}_][\p{L}\p{N}_ -]*$/u.test(name)) {
      throw new UsageError(
        `${file} has the name ${quote(name)}, which cannot be the name of its folder; use only letters, digits, spaces, _ and -.`,
      );
    }
    const same = contenders.findIndex((other) => other.name === name);
    if (same !== i) {
      throw new UsageError(
        `${contenders[same]!.file} and ${file} both have the name ${quote(name)}; rename one of them.`,
      );
    }
  }
  for (const other of others) requireSameData(first, other);
  return [first, ...others];
}

/** A short description of a config's loss. */
export function lossKind({ diffusion }: TrainingConfig): string {
  if (diffusion.process === "tokens") return "nats a token";
  const { predicts, weighting } = diffusion;
  const space = weighting?.kind === "space" ? weighting.space : predicts;
  return `error of ${space === "flow" ? "the velocity" : space}`;
}

/** @throws UsageError unless exactly one of the two is given, above 0 */
export function budgetOf({ minutes, compute }: Parameters<typeof contendersOf>[1]): Budget {
  for (const [option, value] of Object.entries({ minutes, compute })) {
    if (value === undefined || value > 0) continue;
    throw new UsageError(`--${option} is ${value}; give a number above 0.`);
  }
  if (minutes !== undefined && compute === undefined) return { minutes };
  if (compute !== undefined && minutes === undefined) return { compute };
  throw new UsageError(
    compute === undefined
      ? "The training budget is missing; give --minutes, or --compute in Tflop."
      : `Both --minutes ${minutes} and --compute ${compute} are given; give one of them.`,
  );
}

/** @throws UsageError that names the first field in which the training pictures differ */
function requireSameData(first: Contender, other: Contender): void {
  const fields = ({ config: { data, picture, validation } }: Contender) => ({
    data,
    picture,
    validation: validation.data ?? { share: validation.share },
  });
  const [a, b] = [flattened(fields(first)), flattened(fields(other))];
  const field = [...a.keys(), ...b.keys()].find((key) => a.get(key) !== b.get(key));
  if (field === undefined) return;
  throw new UsageError(
    `${first.file} and ${other.file} are not trained on the same pictures: ${field} is ${a.get(field) ?? "not set"} in one and ${b.get(field) ?? "not set"} in the other; make them the same.`,
  );
}
