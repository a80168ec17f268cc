/** Settings of the C library's allocator for processes that allocate the same arrays in every step. */
import { createRequire } from "node:module";

/**
 * Lets glibc keep the memory of arrays that are freed. A step allocates as much as the last one freed, and pages from the system took a
 * seventh of the time of a step. Other allocators have no such settings, and without the package koffi nothing can be set; ranks
 * cannot start without it.
 */
export function keepFreedMemory(): void {
  try {
    const koffi = createRequire(import.meta.url)("koffi") as Koffi;
    const mallopt = koffi.load(null).func("int mallopt(int parameter, int value)");
    mallopt(M_MMAP_THRESHOLD, 2 ** 25);
    mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1);
  } catch {
    return;
  }
}

const M_TRIM_THRESHOLD = -1;
const M_MMAP_THRESHOLD = -3;

interface Koffi {
  load(path: null): { func(definition: string): (...args: unknown[]) => number };
}
