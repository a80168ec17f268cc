/** A rank that reads behind the memory of a WebAssembly module, which V8 turns from a signal into an exception. */
import { openMpi } from "../../dist/training/collective/mpi-node.js";

const job = openMpi();
if (!job) throw new Error("Start this with mpirun.");
// (module (memory 1) (func (export "read") (param i32) (result i32) local.get 0 i32.load))
const { instance } = await WebAssembly.instantiate(
  Uint8Array.from([
    0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 5, 3, 1, 0, 1, 7, 8, 1, 4,
    114, 101, 97, 100, 0, 0, 10, 9, 1, 7, 0, 32, 0, 40, 2, 0, 11,
  ]),
);
const read = /** @type {(address: number) => number} */ (instance.exports["read"]);
try {
  read(1e8);
} catch (error) {
  process.stdout.write(`rank ${job.rank}: ${String(error)}\n`);
}
job.finish(0);
