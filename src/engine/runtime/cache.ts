/** Compiled programs kept for graphs that come again: making a session costs more than running a small one. */
import { hashGraph } from "../passes/hash.ts";
import type { Graph } from "../graph/graph.ts";
import type { Backend, CompileOptions, Program, WeightSource } from "./backend.ts";
import { disposedError } from "./program.ts";

interface Entry {
  readonly program: Promise<Program>;
  leases: number;
  evicted: boolean;
}

/**
 * A backend that gives the same program for graphs of equal structure, weights and options.
 *
 * Disposing such a program gives it back; it is freed when it is neither in use nor among the
 * `capacity` used last. Programs with state are never shared.
 */
export function cachedBackend(backend: Backend, capacity = 8): Backend {
  const entries = new Map<string, Entry>();
  const sourceNumbers = new WeakMap<WeightSource, number>();
  let sources = 0;

  const keyOf = (graph: Graph, options: CompileOptions): string => {
    const { weights, prepack = false, convertEachRun = false, threads = 0 } = options;
    if (weights && !sourceNumbers.has(weights)) sourceNumbers.set(weights, sources++);
    const source = weights ? sourceNumbers.get(weights) : "none";
    return [hashGraph(graph), source, prepack, convertEachRun, threads].join();
  };

  const free = async (entry: Entry): Promise<void> => {
    if (entry.leases === 0 && entry.evicted) await (await entry.program).dispose();
  };

  const lease = async (key: string, entry: Entry): Promise<Program> => {
    entry.leases++;
    let program: Program;
    try {
      program = await entry.program;
    } catch (error) {
      entries.delete(key);
      throw error;
    }
    let returned = false;
    const held = () => (returned ? Promise.reject(disposedError()) : Promise.resolve(program));
    return {
      run: async (inputs, options) => (await held()).run(inputs, options),
      readState: async () => (await held()).readState(),
      writeState: async (values) => (await held()).writeState(values),
      async dispose() {
        if (returned) return;
        returned = true;
        entry.leases--;
        await free(entry);
      },
    };
  };

  return {
    device: backend.device,
    async compile(graph, options = {}) {
      if (options.state) return backend.compile(graph, options);
      const key = keyOf(graph, options);
      const entry = entries.get(key) ?? {
        program: backend.compile(graph, options),
        leases: 0,
        evicted: false,
      };
      // The newest stands last.
      entries.delete(key);
      entries.set(key, entry);
      const leased = await lease(key, entry);
      for (const [oldKey, old] of entries) {
        if (entries.size <= capacity) break;
        entries.delete(oldKey);
        old.evicted = true;
        await free(old);
      }
      return leased;
    },
  };
}
