/** Configs that are to be compared: whether they can be, and what each is given. */
import { UsageError } from "../engine/errors.ts";
import { quote } from "../engine/messages.ts";
import { flattened, type TrainingConfig } from "../training/config/config.ts";
import type { readTrainingConfig } from "../training/config/config-file.ts";

/** A config, and how messages and tables call it. */
export interface Contender {
  readonly name: string;
  readonly file: string;
  readonly config: TrainingConfig;
}

/** What each model is trained for. */
export type Budget = { readonly minutes: number } | { readonly compute: number };

/**
 * Contenders of configs, each with the budget in place of its own.
 *
 * @throws UsageError when they cannot be compared, or there is no one budget
 */
export function contendersOf(
  configs: readonly {
    readonly name: string;
    readonly file: string;
    readonly config: ReturnType<typeof readTrainingConfig>;
  }[],
  budget: {
    readonly minutes?: number | undefined;
    readonly compute?: number | undefined;
  },
): readonly [Contender, ...Contender[]] {
  const given = budgetOf(budget);
  if (configs.length < 2) {
    throw new UsageError(
      `${configs.length === 0 ? "No config was" : `Only ${configs[0]!.file} was`} given, but a comparison takes at least two; name another.`,
    );
  }
  const contenders = configs.map(({ name, file, config }) => {
    if ("lora" in config || "autoencoder" in config) {
      throw new UsageError(
        `${file} trains ${"lora" in config ? "a LoRA" : "an autoencoder"}, which draws nothing by itself; compare configs of whole models.`,
      );
    }
    const training = {
      ...config.training,
      steps: undefined,
      minutes: undefined,
      compute: undefined,
    };
    return { name, file, config: { ...config, name, training: { ...training, ...given } } };
  });
  const [first, ...others] = contenders as [Contender, ...Contender[]];
  for (const [i, { name, file }] of contenders.entries()) {
    // Each has a folder of this name, beside the files of the comparison.
    if (!/^[\p{L}\p{N}_][\p{L}\p{N}_ -]*$/u.test(name)) {
      throw new UsageError(
        `${file} is called ${quote(name)}, which is to be the name of its folder; give it a name of letters, digits, spaces, _ and - alone.`,
      );
    }
    const same = contenders.findIndex((other) => other.name === name);
    if (same !== i) {
      throw new UsageError(
        `${contenders[same]!.file} and ${file} are both called ${quote(name)}; give one of them another name.`,
      );
    }
  }
  for (const other of others) requireSameData(first, other);
  return [first, ...others];
}

/** What its loss is, in a few words. */
export function lossKind({ diffusion }: TrainingConfig): string {
  if (diffusion.process === "tokens") return "nats a token";
  const { predicts, weighting } = diffusion;
  const space = weighting?.kind === "space" ? weighting.space : predicts;
  return `error of ${space === "flow" ? "the velocity" : space}`;
}

function budgetOf({ minutes, compute }: Parameters<typeof contendersOf>[1]): Budget {
  for (const [option, value] of Object.entries({ minutes, compute })) {
    if (value === undefined || value > 0) continue;
    throw new UsageError(`--${option} is ${value}; give a number above 0.`);
  }
  if (minutes !== undefined && compute === undefined) return { minutes };
  if (compute !== undefined && minutes === undefined) return { compute };
  throw new UsageError(
    compute === undefined
      ? "It is not said how long each model is trained; give --minutes, or --compute in Tflop."
      : `Both --minutes ${minutes} and --compute ${compute} are given; give one of them.`,
  );
}

/** @throws UsageError that names the first field in which what is shown differs */
function requireSameData(first: Contender, other: Contender): void {
  const shownBy = ({ config: { data, picture, validation } }: Contender) => ({
    data,
    picture,
    validation: validation?.data,
  });
  const [a, b] = [flattened(shownBy(first)), flattened(shownBy(other))];
  const field = [...a.keys(), ...b.keys()].find((key) => a.get(key) !== b.get(key));
  if (field === undefined) return;
  throw new UsageError(
    `${first.file} and ${other.file} are not trained on the same pictures: ${field} is ${a.get(field) ?? "not set"} in the one and ${b.get(field) ?? "not set"} in the other; make them the same.`,
  );
}
