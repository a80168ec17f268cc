/** The losses that a training wrote down, which a restart of the server has to find again. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { tryJson } from "../engine/bytes.ts";

interface EarlierLoss {
  readonly step: number;
  readonly loss: number;
}

/** The steps and losses in the metrics of a training's folder; none if it has not begun. */
export async function earlierLosses(folder: string): Promise<readonly EarlierLoss[]> {
  const text = await readFile(join(folder, "metrics.jsonl"), "utf8").catch(() => "");
  return text
    .split("\n")
    .map((line) => tryJson(line) as Partial<EarlierLoss> | undefined)
    .filter((line): line is EarlierLoss => typeof line?.loss === "number");
}
