/** GGUF files beside the recording: `out.FILE.NAME` is the tensor NAME of FILE in float32. */
import { castArray } from "../engine/arrays/ndarray.ts";
import { FormatError } from "../engine/errors.ts";
import type { Weights } from "../weights/safetensors/safetensors.ts";
import type { Computed } from "./family.ts";
import { recordedFields } from "./network.ts";
import type { Recording } from "./recording.ts";

/** Numbers with an offset are a product and a difference, which may be rounded once or twice. */
const ROUNDED = 1e-6;
const exact = new Set(["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_0", "Q3_K", "Q6_K"]);

export async function* gguf(recording: Recording): AsyncGenerator<Computed> {
  const { io, openBeside } = recording;
  if (!openBeside) {
    throw new FormatError(
      `${recording.name} needs the GGUF files beside it; open it from its folder.`,
    );
  }
  const names = recordedFields(recording).object("files").all;
  const files = new Map<string, Weights>();
  for (const file of names) files.set(file, await openBeside(file));
  for (const name of io.entries.keys()) {
    const file = names.find((each) => name.startsWith(`out.${each}.`));
    if (file === undefined) continue;
    const tensor = name.slice(`out.${file}.`.length);
    const weights = files.get(file)!;
    const got = castArray(await weights.read(tensor), "float32");
    const want = await io.read(name);
    const rounds = !exact.has(weights.entries.get(tensor)!.tag);
    yield { name, got, want, tolerance: rounds ? { rtol: ROUNDED, floor: 1 } : { atol: 0 } };
  }
}
