import { setTimeout as sleep } from "node:timers/promises";
import {
  graphOf,
  input,
  ndarray,
  scalar,
  ShapeError,
  type Tensor,
  toNumbers,
  zeros,
} from "patchwise/engine";
import { nodeBackend } from "patchwise/engine/node";
import { describe, expect, it } from "vitest";

// The worker's entry is a file of its own, so these tests run the built package, as users do.
const backend = nodeBackend("cpu", { worker: true });

/** A program that takes long enough to be interrupted. */
function slow(): { y: Tensor; inputs: { a: ReturnType<typeof zeros> } } {
  const a = input("a", [1024, 1024]);
  let y = a;
  for (let i = 0; i < 60; i++) y = y.matmul(a).tanh();
  return { y: y.mean(), inputs: { a: zeros("float32", [1024, 1024]) } };
}

describe("a program in a worker process", () => {
  it("leaves the event loop free", async () => {
    const { y, inputs } = slow();
    const program = await backend.compile(graphOf({ y }));
    let ticks = 0;
    const timer = setInterval(() => ticks++, 5);
    const begin = performance.now();
    await program.run(inputs);
    const elapsed = performance.now() - begin;
    clearInterval(timer);
    // A blocked loop would not have ticked at all.
    expect(elapsed).toBeGreaterThan(50);
    expect(ticks).toBeGreaterThan(3);
    await program.dispose();
  });

  it("stops on an abort, and runs again afterwards", async () => {
    const { y, inputs } = slow();
    const program = await backend.compile(graphOf({ y }));
    const whole = performance.now();
    await program.run(inputs);
    const wholeMs = performance.now() - whole;
    const abort = new AbortController();
    const begin = performance.now();
    const run = program.run(inputs, { signal: abort.signal });
    await sleep(10);
    abort.abort();
    await expect(run).rejects.toMatchObject({ name: "AbortError" });
    expect(performance.now() - begin).toBeLessThan(wholeMs);
    expect(toNumbers((await program.run(inputs))["y"]!)).toEqual([0]);
    await program.dispose();
  });

  it("keeps its state in the worker, and fails once an abort has ended it", async () => {
    const m = input("m", []);
    const { y, inputs } = slow();
    const program = await backend.compile(graphOf({ y, next: m.add(y).add(1) }), {
      state: { m: "next" },
      initialState: { m: scalar(5) },
    });
    await program.run(inputs);
    await program.run(inputs);
    expect(toNumbers((await program.readState())["m"]!)).toEqual([7]);
    await program.writeState({ m: scalar(40) });
    await program.run(inputs);
    expect(toNumbers((await program.readState())["m"]!)).toEqual([41]);
    const abort = new AbortController();
    const run = program.run(inputs, { signal: abort.signal });
    await sleep(10);
    abort.abort();
    await expect(run).rejects.toMatchObject({ name: "AbortError" });
    await expect(program.run(inputs)).rejects.toThrow(
      "ended the worker that held this program's state",
    );
    await expect(program.readState()).rejects.toThrow(
      "ended the worker that held this program's state",
    );
    await program.dispose();
  });

  it("reports errors as the same classes", async () => {
    const program = await backend.compile(graphOf({ y: input("x", [2]).add(1) }));
    await expect(program.run({ x: ndarray("float32", [3], [1, 2, 3]) })).rejects.toThrow(
      ShapeError,
    );
    const { y } = await program.run({ x: ndarray("float32", [2], [1, 2]) });
    expect(toNumbers(y!)).toEqual([2, 3]);
    await program.dispose();
  });
});
