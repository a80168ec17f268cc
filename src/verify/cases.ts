/**
 * Recordings of several cases `in.CASE.…` whose sizes differ, of the families that say in `recordedCases` how a case is traced.
 * The recorded gradients are those of the sum over all cases.
 */
import { toNumbers } from "../engine/arrays/ndarray.ts";
import { FormatError, quote } from "../engine/errors.ts";
import { input } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { prefixed } from "../engine/records.ts";
import { families } from "../models/families.ts";
import type {
  NetworkFamily,
  NetworkFields,
  RecordedCase,
  RecordedCases,
} from "../models/family.ts";
import { createParams } from "../nn/params.ts";
import type { Family } from "./family.ts";
import { computeCases, type Network, recordedFields, recordedModel } from "./network.ts";
import type { Recording } from "./recording.ts";

type FamilyOfCases = NetworkFamily & { readonly recordedCases: RecordedCases<NetworkFields> };

/** The families that are recorded in cases, by the name in their config.json. */
export function familiesOfCases(): readonly (readonly [name: string, family: Family])[] {
  return [...families.values()]
    .filter((family): family is FamilyOfCases => family.recordedCases !== undefined)
    .map(({ recordedCases }) => [recordedCases.name, verifyCases(recordedCases)]);
}

function verifyCases(family: RecordedCases<NetworkFields>): Family {
  return async function* cases(recording, backend) {
    const config = family.config(recordedModel(recording).args, recordedFields(recording));
    const networks: Network[] = [];
    for (const name of caseNames(recording)) {
      const params = createParams();
      const traced = family.trace(params, caseOf(recording, name), config);
      for (const [key, numbers] of Object.entries(traced.own ?? {})) {
        await checkOwn(recording, `in.${name}.${key}`, numbers);
      }
      const outputs = prefixed(`out.${name}.`, traced.outputs);
      const losses = traced.judged.map((output) => output.square().mean());
      networks.push({ params, outputs, loss: losses.reduce((sum, loss) => sum.add(loss)) });
    }
    yield* computeCases(recording, backend, networks);
  };
}

/** The names CASE of the recorded inputs `in.CASE.…`. */
export function caseNames({ name, io }: Recording): readonly string[] {
  const found = [...io.entries.keys()].flatMap((key) => /^in\.(\w+)\./.exec(key)?.[1] ?? []);
  if (found.length > 0) return [...new Set(found)].toSorted();
  throw new FormatError(
    `${name} has no inputs named "in.CASE.NAME" in ${io.name}; record the inputs with the outputs.`,
  );
}

function caseOf({ name, io }: Recording, which: string): RecordedCase {
  const optional = (wanted: string) => {
    const key = `in.${which}.${wanted}`;
    const entry = io.entries.get(key);
    return entry?.dtype ? input(key, entry.shape, entry.dtype) : undefined;
  };
  const numbered = (wanted: string, from = 0): readonly Tensor[] => {
    const leaf = optional(`${wanted}${from}`);
    return leaf ? [leaf, ...numbered(wanted, from + 1)] : [];
  };
  return {
    optional,
    numbered: (wanted) => numbered(wanted),
    required(wanted) {
      const leaf = optional(wanted);
      if (leaf) return leaf;
      throw new FormatError(
        `${name} has no tensor ${quote(`in.${which}.${wanted}`)} in ${io.name}; record the inputs with the outputs.`,
      );
    },
  };
}

/** Checks an input that the network computes itself, such as positions. */
async function checkOwn(
  { name, io }: Recording,
  key: string,
  own: readonly number[],
): Promise<void> {
  if (!io.entries.has(key)) return;
  const recorded = toNumbers(await io.read(key));
  const differs = recorded.findIndex((value, i) => value !== own[i]);
  if (differs < 0 && recorded.length === own.length) return;
  throw new FormatError(
    `${name}: ${quote(key)} differs at element ${differs} from what the network computes itself (${recorded[differs]} instead of ${own[differs]}); record the original's own inputs.`,
  );
}
