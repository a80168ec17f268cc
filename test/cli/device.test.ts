/** `--device` for ranks, each of which has a GPU of its own. */
import { expect, it } from "vitest";
import { chosenDevice } from "../../src/cli/options.ts";

it.each([
  ["cpu", {}, "cpu"],
  ["cuda:3", {}, "cuda:3"],
  ["cuda:LOCAL_RANK", { OMPI_COMM_WORLD_LOCAL_RANK: "2", SLURM_LOCALID: "0" }, "cuda:2"],
  ["cuda:LOCAL_RANK", { MPI_LOCALRANKID: "0", SLURM_LOCALID: "1" }, "cuda:0"],
  ["dml:LOCAL_RANK", { SLURM_LOCALID: "5" }, "dml:5"],
  ["webgpu:LOCAL_RANK", { MPI_LOCALRANKID: "0" }, "webgpu"],
] as const)("takes %s with %o for %s", (asked, environment, device) => {
  expect(chosenDevice(asked, environment)).toBe(device);
});

it("says what it lacks for the number of a rank", () => {
  expect(() => chosenDevice("cuda:LOCAL_RANK", { SLURM_LOCALID: "" })).toThrow(
    /^LOCAL_RANK stands for the number of a process on its machine, but no launcher has told one \(OMPI_COMM_WORLD_LOCAL_RANK, .*\); start the command with mpirun or srun, or name the device, such as cuda:0\.$/,
  );
  expect(() => chosenDevice("webgpu:LOCAL_RANK", { MPI_LOCALRANKID: "1" })).toThrow(
    "--device webgpu:LOCAL_RANK would be WebGPU device 1, but ONNX Runtime always takes the first one of a machine; let each rank see one GPU alone and give webgpu, or give cuda:LOCAL_RANK.",
  );
});
