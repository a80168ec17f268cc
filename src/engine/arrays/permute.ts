/** Arrays with their axes in another order. */
import { allocate, type NdArray } from "./ndarray.ts";

/**
 * A copy of an array whose axis i is axis `axes[i]` of the original.
 *
 * @example permuteAxes(kernel, [3, 2, 0, 1]) // a convolution of Flax, [height, width, in, out], as PyTorch has it
 */
export function permuteAxes({ dtype, shape, data }: NdArray, axes: readonly number[]): NdArray {
  const sizes = axes.map((axis) => shape[axis]!);
  const steps = axes.map((axis) =>
    shape.slice(axis + 1).reduce((product, size) => product * size, 1),
  );
  const target = allocate(dtype, data.length);
  const [inner, step] = [sizes.at(-1) ?? 1, steps.at(-1) ?? 1];
  const at = sizes.map(() => 0);
  for (let row = 0; row < target.length; row += inner) {
    const from = at.reduce((sum, position, axis) => sum + position * steps[axis]!, 0);
    for (let i = 0; i < inner; i++) target[row + i] = data[from + i * step]!;
    // Counts up all axes but the last.
    for (let axis = sizes.length - 2; axis >= 0 && ++at[axis]! === sizes[axis]; axis--)
      at[axis] = 0;
  }
  return { dtype, shape: sizes, data: target };
}
