/** Recomputes a recording and compares every output with its recorded value. */
import { isFloat } from "../engine/arrays/ndarray.ts";
import { FormatError, quote } from "../engine/errors.ts";
import { compare, type Tolerance } from "./compare.ts";
import { recordingFamilies } from "./families.ts";
import type { BackendSource, Computed } from "./family.ts";
import type { RecordedConfig, Recording } from "./recording.ts";

export interface OutputReport {
  readonly name: string;
  /** The largest error in the measure of the tolerance; null if it is not finite. */
  readonly max_error: number | null;
  /** Null if the output was not computed. */
  readonly tolerance: number | null;
  readonly ok: boolean;
  /** The reason for a failure that the numbers do not show. */
  readonly reason?: string;
}

export interface RecordingReport {
  readonly name: string;
  readonly family: string;
  readonly ok: boolean;
  readonly outputs: readonly OutputReport[];
}

/**
 * @throws FormatError if the family is unknown, nothing was recorded, or the recording is inconsistent
 */
export async function verifyRecording(
  recording: Recording,
  backend: BackendSource,
): Promise<RecordingReport> {
  const { name, config, io } = recording;
  const families = recordingFamilies();
  const family = families.get(config.family);
  if (!family) {
    throw new FormatError(
      `${name} has the unknown family ${quote(config.family)}; known are ${[...families.keys()].join(", ")}.`,
    );
  }
  const missing = new Set([...io.entries.keys()].filter((key) => !key.startsWith("in.")));
  if (missing.size === 0) {
    throw new FormatError(`${name} has no recorded outputs in ${io.name}; record at least one.`);
  }
  const outputs: OutputReport[] = [];
  for await (const computed of family(recording, backend)) {
    missing.delete(computed.name);
    outputs.push(judge(computed, recording));
  }
  for (const key of missing) {
    const reason = `the family ${config.family} computes no such output`;
    outputs.push({ name: key, max_error: null, tolerance: null, ok: false, reason });
  }
  return { name, family: config.family, ok: outputs.every(({ ok }) => ok), outputs };
}

function judge(computed: Computed, { name, config }: Recording): OutputReport {
  const { got, want, tolerance = atolOf(config) } = computed;
  if (!tolerance && isFloat(want.dtype)) {
    throw new FormatError(
      `${name} has no "tolerance.atol" in its config.json, but ${quote(computed.name)} needs one; give the largest absolute error.`,
    );
  }
  const { maxError, limit, ok, reason } = compare(got, want, tolerance);
  const max_error = Number.isFinite(maxError) ? maxError : null;
  return { name: computed.name, max_error, tolerance: limit, ok, ...(reason && { reason }) };
}

function atolOf({ atol }: RecordedConfig): Tolerance | undefined {
  return atol === undefined ? undefined : { atol };
}
