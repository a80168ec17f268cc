/**
 * The work of the suite `matmul`: C = A · B in float32, for each of the shapes below, `products` times with a
 * different A each and one B, through the engine's ordinary API. The factors are in the engine before the clock
 * starts and the products stay there: what is timed is the multiplication, not a copy to the host. (An engine
 * that can only hand results out may reduce each product to its last element inside the same program.)
 *
 * A step times each shape on its own: `parts` holds milliseconds for ONE product of each shape, and `ms` is their
 * sum. The checksum is the sum over all shapes and products of |last element of C|.
 *
 * `tensors.*` (see `tensor-file.ts`) holds `MxKxN.a` [products, M, K] and `MxKxN.b` [K, N]; `work.json` the rest.
 */
import { type HostTensor, normalSource, normalTensor } from "./tensor-file.ts";

export interface MatmulWork {
  readonly threads: number;
  readonly products: number;
  /** [m, k, n] by name; the last three are the layers of the DiT in `train-work.ts`. */
  readonly shapes: Readonly<Record<string, readonly [number, number, number]>>;
}

export function matmulWork(threads: number): MatmulWork {
  const shapes: [number, number, number][] = [
    [1024, 1024, 1024],
    [2048, 384, 1152],
    [2048, 384, 1536],
    [2048, 1536, 384],
  ];
  return {
    threads,
    products: 8,
    shapes: Object.fromEntries(shapes.map((shape) => [shape.join("x"), shape])),
  };
}

export function* matmulTensors(work: MatmulWork): Generator<readonly [string, HostTensor]> {
  const normal = normalSource(2);
  for (const [name, [m, k, n]] of Object.entries(work.shapes)) {
    yield [`${name}.a`, normalTensor(normal, [work.products, m, k], 1)];
    yield [`${name}.b`, normalTensor(normal, [k, n], 1)];
  }
}

/** Floating-point operations of one product of each shape, which together are a step. */
export function matmulFlops(work: MatmulWork): Record<string, number> {
  return Object.fromEntries(
    Object.entries(work.shapes).map(([name, [m, k, n]]) => [name, 2 * m * k * n]),
  );
}
