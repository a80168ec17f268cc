/** jax-js with its best settings in Node: WebAssembly with a given number of worker threads. */
import type * as jaxModule from "@jax-js/jax";
import { provideWebWorkers } from "./web-worker.ts";

export type Jax = typeof jaxModule;

export async function loadJax(threads: number): Promise<{ jax: Jax; settings: string }> {
  provideWebWorkers(threads);
  const jax = await import("@jax-js/jax");
  await jax.init("wasm");
  jax.defaultDevice("wasm");
  return { jax, settings: `@jax-js/jax, wasm device, SIMD, ${threads} worker threads` };
}
