/** A target of the fuzzers that has every fault they look for, by the number in an input. */
import type { OpenTarget } from "../../scripts/fuzz/target.ts";
import { FormatError } from "../../src/engine/errors.ts";

const kept: Uint8Array[] = [];

const faults: readonly (() => unknown)[] = [
  () => "read",
  () => {
    throw new FormatError("f is damaged; download it again.");
  },
  () => {
    throw new TypeError("undefined is not a function");
  },
  () => {
    throw new FormatError("f is damaged");
  },
  () => {
    for (;;);
  },
  () => kept.push(new Uint8Array(2 ** 30).fill(1)),
  () => process.abort(),
];

export const open: OpenTarget = () => ({
  sound: [Uint8Array.of(0)],
  mutations: [(random) => Uint8Array.of(Math.floor(random() * faults.length))],
  read: ([fault]) => faults[fault!]!(),
});
