/** The numbers in which a network's linear layers are computed when it draws. */
import { UsageError } from "../engine/errors.ts";
import { quantizeLinears } from "../engine/passes/quantize.ts";
import type { Stage } from "./image-model.ts";

/** "int8" takes the products of the inner linear layers in 8-bit integers, by scales for each channel and each row. */
export const computations = ["float32", "int8"] as const;
export type Computation = (typeof computations)[number];

/** The devices that have kernels for products of 8-bit integers. */
const int8Devices: readonly string[] = ["cpu", "wasm"];

/** @throws UsageError if the device has no kernels for it */
export function checkComputation(compute: Computation | undefined, device: string): void {
  if (compute !== "int8" || int8Devices.includes(device)) return;
  throw new UsageError(
    `compute int8 does not apply to the device ${device}, which has no products of 8-bit integers here; use ${int8Devices.join(" or ")}, or leave it out.`,
  );
}

/** A stage with its inner linear layers in 8-bit integers. */
export function quantizedStage(stage: Stage): Stage {
  let made: ReturnType<typeof quantizeLinears> | undefined;
  const quantized = () => (made ??= quantizeLinears(stage.graph(), stage.weights));
  return {
    ...stage,
    graph: () => quantized().graph,
    weights: (name) => quantized().weights(name),
  };
}
