/** Finds the launchers of MPI that the tests start. Imports only Node's own modules, because it runs before node_modules exists. */
import { spawnSync } from "node:child_process";
import { installPackages, isOnPath } from "./find-chromium.mjs";

/** The launchers as Debian names them, where both may be installed, and how they say what they are. */
const launchers = [
  {
    name: "Open MPI",
    commands: ["mpirun.openmpi", "mpirun"],
    says: /Open MPI|OpenRTE/,
    flags: ["--allow-run-as-root"],
  },
  { name: "MPICH", commands: ["mpirun.mpich", "mpirun"], says: /HYDRA/, flags: [] },
];

/**
 * The commands that start ranks with each MPI that is installed, up to the option for their number.
 *
 * @returns {{ name: string, command: string, flags: readonly string[] }[]}
 */
export function findMpi() {
  return launchers.flatMap(({ name, commands, says, flags }) => {
    const command = commands.find(
      (each) =>
        isOnPath(each) && says.test(spawnSync(each, ["--version"], { encoding: "utf8" }).stdout),
    );
    return command ? [{ name, command, flags: process.getuid?.() === 0 ? flags : [] }] : [];
  });
}

/** Like `findMpi`, but installs Debian's packages of what is missing, and says so where that cannot be done. */
export function ensureMpi() {
  if (findMpi().length < launchers.length)
    installPackages("Open MPI and MPICH", ["openmpi-bin", "mpich"]);
  const found = findMpi().map(({ name }) => name);
  const missing = launchers.filter(({ name }) => !found.includes(name)).map(({ name }) => name);
  if (missing.length > 0)
    console.error(
      `Tests of training on ${missing.join(" and ")} are left out: it is not installed.`,
    );
}
