/**
 * A `Collective` over MPI (MPI Forum, "MPI: A Message-Passing Interface Standard", version 3.1), for processes that `mpirun` or
 * `srun` started. The library is called by FFI, through the package koffi, and only where such a launcher says that there are
 * several processes.
 */
import { createRequire } from "node:module";
import { UsageError } from "../../engine/errors.ts";
import type { Collective } from "./collective.ts";
import { keepFreedMemory } from "./freed-memory-node.ts";

/** A C pointer or integer that stands for an object of MPI. */
type Handle = bigint | number;

/** The objects of MPI that are used. They are addresses of data in Open MPI, and numbers in MPICH and its relatives. */
interface Handles {
  readonly world: Handle;
  readonly float: Handle;
  readonly double: Handle;
  readonly byte: Handle;
  readonly sum: Handle;
  /** In place of a buffer to send: the buffer to receive holds the values. */
  readonly inPlace: bigint;
}

interface Library {
  func(definition: string): (...args: unknown[]) => number;
  symbol(name: string): bigint;
}

type Environment = Readonly<Record<string, string | undefined>>;

interface Implementation {
  /** Its name, for messages. */
  readonly name: string;
  /** The number of processes that the environment of its launcher tells, and of those on this machine; NaN if it does not. */
  size(environment: Environment): number;
  localSize(environment: Environment): number;
  /** Names of the shared library, the most exact one first. */
  readonly libraries: readonly string[];
  /** Variables of the environment that its libraries read when they are loaded or start, unless they are set. */
  readonly settings: Readonly<Record<string, string>>;
  /** The C type of handles. */
  readonly handle: "void *" | "int";
  handles(library: Library): Handles;
}

/**
 * Settings of UCX (openucx.org), by which MPICH and Open MPI send messages. It assumes that it owns the process, which Node does.
 */
const ucx = {
  // To watch for memory that is returned to the system, UCX moves the end of the heap up by a page and back at its start. What another of Node's
  // threads has allocated there in between is lost, and the process crashes: 2 of 40 starts with MALLOC_ARENA_MAX=1.
  UCX_MEM_EVENTS: "no",
  UCX_MEM_MMAP_HOOK_MODE: "none",
  // Its own handlers of signals end a process whose WebAssembly reads out of bounds, which V8 makes an exception of.
  UCX_ERROR_SIGNALS: "",
};

const implementations: readonly Implementation[] = [
  {
    name: "Open MPI",
    // srun starts Open MPI by PMIx, which tells no size.
    size: (given) =>
      Number(
        given["OMPI_COMM_WORLD_SIZE"] ?? (given["PMIX_RANK"] && given["SLURM_STEP_NUM_TASKS"]),
      ),
    localSize: (given) =>
      Number(
        given["OMPI_COMM_WORLD_LOCAL_SIZE"] ?? given["SLURM_STEP_TASKS_PER_NODE"]?.split("(")[0],
      ),
    libraries: ["libmpi.so.40", "libmpi.so", "libmpi.40.dylib", "libmpi.dylib"],
    // Messages between processes of one machine are copied through memory that both map, in parts that stay in the cache. Reading the other's
    // memory by a system call took six times as long for 33M numbers in a virtual machine.
    settings: { ...ucx, OMPI_MCA_btl_vader_single_copy_mechanism: "none" },
    handle: "void *",
    handles: (library) => ({
      world: library.symbol("ompi_mpi_comm_world"),
      float: library.symbol("ompi_mpi_float"),
      double: library.symbol("ompi_mpi_double"),
      byte: library.symbol("ompi_mpi_byte"),
      sum: library.symbol("ompi_mpi_op_sum"),
      inPlace: 1n,
    }),
  },
  {
    name: "MPICH",
    size: (given) => Number(given["PMI_SIZE"]),
    localSize: (given) => Number(given["MPI_LOCALNRANKS"]),
    libraries: ["libmpich.so.12", "libmpi.so.12", "libmpich.so", "libmpi.12.dylib"],
    settings: ucx,
    handle: "int",
    // MPICH's ABI (initiative of 2013), which Intel MPI, MVAPICH and Cray MPI share.
    handles: () => ({
      world: 0x44000000,
      float: 0x4c00040a,
      double: 0x4c00080b,
      byte: 0x4c00010d,
      sum: 0x58000003,
      inPlace: -1n,
    }),
  },
];

/** A `Collective` over MPI, which has to be closed. */
export interface MpiCollective extends Collective {
  /** Waits for the other ranks, and ends MPI and this process. */
  finish(exitCode: number): never;
  /** Ends all processes of the job. */
  abort(exitCode: number): never;
}

/** The MPI that started this process as one of several. */
function launcher(environment: Environment): Implementation | undefined {
  return implementations.find((each) => each.size(environment) > 1);
}

/** True in a process that `mpirun` or `srun` started together with others. */
export function startedByMpi(environment: Environment = process.env): boolean {
  return launcher(environment) !== undefined;
}

/** Where launchers tell a process its number among those on its machine: Open MPI, MPICH and Intel MPI, MVAPICH, PALS, Slurm. */
const localRanks = [
  "OMPI_COMM_WORLD_LOCAL_RANK",
  "MPI_LOCALRANKID",
  "MV2_COMM_WORLD_LOCAL_RANK",
  "PALS_LOCAL_RANKID",
  // Last, since other launchers pass on that of the script that runs them.
  "SLURM_LOCALID",
];

/**
 * The number of this process among those on its machine, from 0.
 *
 * @throws UsageError if no launcher tells it
 */
export function localRank(environment: Environment = process.env): number {
  const told = toldLocalRank(environment);
  if (told !== undefined) return told;
  throw new UsageError(
    `LOCAL_RANK stands for the number of a process on its machine, but no launcher has told one (${localRanks.join(", ")}); start the command with mpirun or srun, or name the device, such as cuda:0.`,
  );
}

function toldLocalRank(environment: Environment): number | undefined {
  const told = localRanks
    .flatMap((name) => environment[name] ?? [])
    .find((text) => /^\d+$/.test(text));
  return told === undefined ? undefined : Number(told);
}

/** True if another process of this machine says why both fail, before MPI tells who they are: the first one there. */
export function isSpokenFor(environment: Environment = process.env): boolean {
  return startedByMpi(environment) && (toldLocalRank(environment) ?? 0) > 0;
}

/**
 * The processes that `mpirun` or `srun` started together with this one; undefined if there are no others.
 *
 * @throws UsageError when the library or koffi is missing, or the library knows no others, which would leave every process to itself
 */
export function openMpi(environment: Environment = process.env): MpiCollective | undefined {
  const found = launcher(environment);
  if (!found) return undefined;
  const { name, handle } = found;
  const koffi = loadKoffi(found);
  for (const [variable, value] of Object.entries(found.settings)) process.env[variable] ??= value;
  const { library, path } = loadLibrary(koffi, found);
  keepFreedMemory();
  // Threads of ONNX Runtime and of MPI's plugins outlive MPI_Finalize, and crash now and then in the handlers of a regular exit.
  const leave = koffi.load(null).func("void _exit(int code)") as (code: number) => never;
  const { world, float, double, byte, sum, inPlace } = found.handles(library);
  const call = (definition: string) => {
    const symbol = /MPI_\w+/.exec(definition)![0];
    const run = library.func(definition.replaceAll("MPI_Handle", handle));
    return (...args: unknown[]) => {
      const code = run(...args);
      // The default handler of errors ends the job, so this is for other handlers.
      if (code !== 0) throw new UsageError(`${symbol} of ${name} failed with code ${code}.`);
    };
  };
  const initialize = call("int MPI_Init(void *argc, void *argv)");
  const commRank = call("int MPI_Comm_rank(MPI_Handle comm, _Out_ int *rank)");
  const commSize = call("int MPI_Comm_size(MPI_Handle comm, _Out_ int *size)");
  const allreduce = call(
    "int MPI_Allreduce(void *send, void *receive, int count, MPI_Handle type, MPI_Handle op, MPI_Handle comm)",
  );
  const bcast = call(
    "int MPI_Bcast(void *buffer, int count, MPI_Handle type, int root, MPI_Handle comm)",
  );
  const reduceScatter = call(
    "int MPI_Reduce_scatter_block(void *send, void *receive, int count, MPI_Handle type, MPI_Handle op, MPI_Handle comm)",
  );
  const allgather = call(
    "int MPI_Allgather(void *send, int sent, MPI_Handle sendType, void *receive, int count, MPI_Handle type, MPI_Handle comm)",
  );
  const finalize = call("int MPI_Finalize()");
  const abortJob = call("int MPI_Abort(MPI_Handle comm, int code)");
  initialize(null, null);
  const [rank, size] = [[0], [0]];
  commRank(world, rank);
  commSize(world, size);
  const expected = found.size(environment);
  if (size[0] !== expected) {
    finalize();
    throw new UsageError(
      `The environment says that a launcher of ${name} started ${expected} processes, but ${path} knows of ${size[0]}; start them with the mpirun that belongs to this library, or unset what an earlier launcher has left in the environment.`,
    );
  }
  return {
    rank: rank[0]!,
    size: size[0],
    local: found.localSize(environment) || size[0],
    sum(values) {
      const type = values instanceof Float32Array ? float : double;
      allreduce(inPlace, settled(values), values.length, type, sum, world);
    },
    broadcast(bytes, root = 0) {
      for (let from = 0; from < bytes.length; from += MOST_BYTES) {
        const part = bytes.subarray(from, from + MOST_BYTES);
        bcast(settled(part), part.length, byte, root, world);
      }
    },
    sumParts(parts, own) {
      reduceScatter(settled(parts), settled(own), own.length, float, sum, world);
    },
    gatherParts(parts) {
      const count = parts.length / size[0]!;
      allgather(inPlace, count, float, settled(parts), count, float, world);
    },
    finish(exitCode) {
      finalize();
      return leave(exitCode);
    },
    abort(exitCode) {
      abortJob(world, exitCode);
      return leave(exitCode);
    },
  };
}

/** An array at an address that stays: V8 keeps small ones in its heap, where they move, until their buffer is asked for. */
function settled({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Counts are C integers. */
const MOST_BYTES = 2 ** 30;

/** The part of the package koffi that is used. */
interface Koffi {
  load(path: string | null, options?: { readonly global: boolean }): Library;
}

function loadKoffi({ name }: Implementation): Koffi {
  try {
    return createRequire(import.meta.url)("koffi") as Koffi;
  } catch (error) {
    throw new UsageError(
      `${started(name)}, but the package koffi, which calls MPI, is not installed: npm install koffi.`,
      { cause: error },
    );
  }
}

function started(name: string): string {
  return `A launcher of ${name} started several processes`;
}

function loadLibrary(
  koffi: Koffi,
  { name, libraries }: Implementation,
): { readonly library: Library; readonly path: string } {
  for (const path of libraries) {
    try {
      // Open MPI's plugins look for its symbols in the process.
      return { library: koffi.load(path, { global: true }), path };
    } catch {
      continue;
    }
  }
  throw new UsageError(
    `${started(name)}, but none of its libraries (${libraries.join(", ")}) can be loaded; install it, or add its folder to LD_LIBRARY_PATH.`,
  );
}
