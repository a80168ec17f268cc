/** The conformance suite inside of a page. */
import type { DType } from "../../src/engine/arrays/ndarray.ts";
import type { WebDevice } from "../../src/engine/runtime/ort-session-web.ts";
import { webBackend } from "../../src/engine/runtime/ort-web.ts";
import { allCases } from "./cases/index.ts";
import { dtypesOf, runCase, runRefusal } from "./suite.ts";
import { trainSmallTransformer } from "./training.ts";

/**
 * What is wrong with a case on a device.
 *
 * @param lacking dtypes that the device has not: a case with one of them has to be refused
 */
export async function run(
  device: WebDevice,
  name: string,
  lacking: readonly DType[],
): Promise<string[]> {
  const test = allCases.find((known) => known.name === name);
  if (!test) throw new Error(`There is no case ${name}.`);
  const backend = webBackend({ device, wasmPaths: "/ort/" });
  const dtypes = dtypesOf(test);
  const refused = lacking.some((dtype) => dtypes.has(dtype));
  return refused ? runRefusal(backend, test, lacking) : runCase(backend, test);
}

export function train(device: WebDevice): Promise<number[]> {
  return trainSmallTransformer(webBackend({ device, wasmPaths: "/ort/" }));
}
