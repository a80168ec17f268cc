import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { InferenceSession } from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { recompute } from "../../../src/engine/graph/recompute.ts";
import { DeviceError, PatchwiseError, ShapeError } from "../../../src/engine/errors.ts";
import { input, parameter } from "../../../src/engine/graph/functional.ts";
import { gradient } from "../../../src/engine/gradients/gradient.ts";
import { graphOf } from "../../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, toNumbers, zeros } from "../../../src/engine/arrays/ndarray.ts";
import { lower } from "../../../src/engine/onnx/lower.ts";
import { nodeBackend } from "../../../src/engine/runtime/ort-node.ts";
import { batch } from "../../../src/engine/graph/shape.ts";
import { simplify } from "../../../src/engine/passes/simplify.ts";
import type { Tensor } from "../../../src/engine/graph/tensor.ts";

const backend = nodeBackend("cpu");
const vector = (...values: number[]) => ndarray("float32", [values.length], values);

describe("a program on the CPU", () => {
  const x = input("x", [batch, 2]);
  const y = input("y", [batch, 2]);

  it("runs with any batch size", async () => {
    const program = await backend.compile(graphOf({ sum: x.add(y) }));
    for (const size of [0, 1, 5]) {
      const given = ndarray(
        "float32",
        [size, 2],
        Array.from({ length: 2 * size }, (_, i) => i),
      );
      const { sum } = await program.run({ x: given, y: given });
      expect(sum!.shape).toEqual([size, 2]);
      expect(toNumbers(sum!)).toEqual(toNumbers(given).map((value) => 2 * value));
    }
    await program.dispose();
  });

  it("describes a wrong input in one sentence", async () => {
    const program = await backend.compile(graphOf({ sum: x.add(y) }));
    const two = zeros("float32", [2, 2]);
    const cases: [Record<string, NdArray>, string][] = [
      [{ x: two }, "The input y is missing; expected float32 [B, 2]."],
      [{ x: two, y: two, z: two }, "The program has no input z; it takes x, y."],
      [
        { x: two, y: zeros("float32", [2, 3]) },
        "The input y is float32 [2, 3], expected float32 [B, 2].",
      ],
      [
        { x: two, y: zeros("int64", [2, 2]) },
        "The input y is int64 [2, 2], expected float32 [B, 2].",
      ],
      [
        { x: two, y: zeros("float32", [3, 2]) },
        "The input y holds a batch of 3, but x one of 2; give both the same.",
      ],
    ];
    for (const [inputs, message] of cases) {
      await expect(program.run(inputs)).rejects.toThrow(new ShapeError(message));
    }
    await program.dispose();
  });

  it("frees its memory without affecting other programs", async () => {
    const [first, second] = [
      await backend.compile(graphOf({ z: x.add(1) })),
      await backend.compile(graphOf({ z: x.add(2) })),
    ];
    await first.dispose();
    await first.dispose();
    await expect(first.run({ x: zeros("float32", [1, 2]) })).rejects.toThrow(PatchwiseError);
    const { z } = await second.run({ x: zeros("float32", [1, 2]) });
    expect(toNumbers(z!)).toEqual([2, 2]);
    await second.dispose();
  });

  it("does not start a run that was aborted while it waited", async () => {
    const program = await backend.compile(graphOf({ z: x.add(1) }));
    const abort = new AbortController();
    abort.abort();
    const run = program.run({ x: zeros("float32", [1, 2]) }, { signal: abort.signal });
    await expect(run).rejects.toMatchObject({ name: "AbortError" });
    await program.dispose();
  });

  it("names a missing device and what it requires", () => {
    const missing = process.platform === "win32" ? "coreml" : "dml";
    expect(() => nodeBackend(missing)).toThrow(DeviceError);
    expect(() => nodeBackend(missing)).toThrow(/is not available on .*: it needs/);
    expect(() => nodeBackend("tpu" as "cpu")).toThrow(
      "The device tpu does not exist; expected one of cpu, cuda, coreml, dml, webgpu, or one of several, such as cuda:1.",
    );
    for (const device of ["cpu:0", "webgpu:1", "cuda:x"]) {
      expect(() => nodeBackend(device as "cpu")).toThrow(`The device ${device} does not exist;`);
    }
  });

  it.runIf(process.platform === "linux")(
    "says in one sentence what a bundled device lacks here",
    async () => {
      for (const device of ["cuda", "cuda:7", "webgpu"] as const) {
        const compiled = nodeBackend(device).compile(graphOf({ sum: x.add(y) }));
        const outcome = await compiled.then((program) => program.dispose(), String);
        // Machines that have the device run the program.
        if (outcome === undefined) continue;
        expect(outcome).toMatch(
          new RegExp(
            `^DeviceError: The device ${device} cannot be used on this machine: it needs .*\\.$`,
          ),
        );
      }
    },
  );

  it("uses no processor time while idle", async () => {
    const big = input("big", [512, 512]);
    const program = await backend.compile(graphOf({ z: big.matmul(big) }));
    await program.run({ big: zeros("float32", [512, 512]) });
    const before = process.cpuUsage();
    await sleep(500);
    const { user, system } = process.cpuUsage(before);
    // One spinning thread alone would use 500,000 µs.
    expect(user + system).toBeLessThan(200_000);
    await program.dispose();
  });
});

describe("state", () => {
  const [w, m, dx] = [parameter("w", [3]), input("m", [3]), input("dx", [3])];
  // The new w is read after m is replaced, and the old w after the new one exists.
  const nextM = m.mul(0.5).add(dx);
  const nextW = w.sub(nextM);
  const graph = graphOf({ nextM, nextW, change: nextW.mul(10).sub(w), before: m.mul(1).add(0) });

  it("is kept between runs, in place or not, as if it were passed in and out", async () => {
    const first = { w: vector(1, 2, 3), m: vector(4, 5, 6) };
    const program = await backend.compile(graph, {
      state: { w: "nextW", m: "nextM" },
      initialState: first,
    });
    let [we, me] = [
      [1, 2, 3],
      [4, 5, 6],
    ];
    for (let step = 1; step <= 4; step++) {
      const { change, before } = await program.run({ dx: vector(step, 1, 0) });
      expect(toNumbers(before!)).toEqual(me);
      const nm = me.map((value, i) => value * 0.5 + [step, 1, 0][i]!);
      const nw = we.map((value, i) => value - nm[i]!);
      expect(toNumbers(change!)).toEqual(nw.map((value, i) => value * 10 - we[i]!));
      [we, me] = [nw, nm];
    }
    const state = await program.readState();
    expect(toNumbers(state["w"]!)).toEqual(we);
    expect(toNumbers(state["m"]!)).toEqual(me);
    expect(toNumbers(first.w)).toEqual([1, 2, 3]);
    await program.dispose();
  });

  it("can be replaced between runs, in part or whole", async () => {
    const first = { w: vector(1, 2, 3), m: vector(4, 5, 6) };
    const [plain, written] = await Promise.all(
      [first, { w: vector(0, 0, 0), m: vector(9, 9, 9) }].map((initialState) =>
        backend.compile(graph, { state: { w: "nextW", m: "nextM" }, initialState }),
      ),
    );
    await written!.run({ dx: vector(7, 7, 7) });
    await written!.writeState(first);
    for (const step of [1, 2]) {
      const given = { dx: vector(step, 1, 0) };
      expect(await written!.run(given)).toEqual(await plain!.run(given));
    }
    const before = await plain!.readState();
    const other = vector(-1, -2, -3);
    await written!.writeState({ w: other });
    other.data.fill(0);
    expect(await written!.readState()).toEqual({ w: vector(-1, -2, -3), m: before["m"] });
    await Promise.all([plain!.dispose(), written!.dispose()]);
  });

  it("rejects unknown names and values of another shape or dtype", async () => {
    const program = await backend.compile(graph, {
      state: { w: "nextW", m: "nextM" },
      initialState: { w: vector(1, 2, 3), m: vector(4, 5, 6) },
    });
    await expect(program.writeState({ nobody: vector(1) })).rejects.toThrow(
      "The program has no state nobody; it has w, m.",
    );
    await expect(program.writeState({ w: vector(1) })).rejects.toThrow(
      "The state w is float32 [3], but the value for it is float32 [1].",
    );
    await program.dispose();
  });

  it("must have a leaf, an output and an initial value of matching types", async () => {
    const compile = (state: Record<string, string>, initialState: Record<string, NdArray>) =>
      backend.compile(graph, { state, initialState });
    await expect(compile({ nobody: "nextW" }, {})).rejects.toThrow("has no input or parameter");
    await expect(compile({ w: "nothing" }, {})).rejects.toThrow("has no output nothing");
    await expect(compile({ w: "nextW" }, {})).rejects.toThrow("has no first value");
    await expect(compile({ w: "nextW" }, { w: vector(1) })).rejects.toThrow(
      "The input w is float32 [1], expected float32 [3].",
    );
  });
});

describe("a recomputed block", () => {
  const [x, w1, w2] = [input("x", [8, 16]), parameter("a.w", [64, 16]), parameter("b.w", [16, 64])];
  const block = (h: Tensor) => h.add(h.layerNorm().linear(w1).gelu().linear(w2));
  const trained = (wrap: (h: Tensor) => Tensor) => {
    const loss = wrap(wrap(x)).square().mean();
    const [g1, g2, gx] = gradient(loss, [w1, w2, x]) as [Tensor, Tensor, Tensor];
    return graphOf({ loss, g1, g2, gx });
  };
  const [plain, recomputed] = [trained(block), trained((h) => recompute([h], block))];

  /** How many matrix products are left in the model after ONNX Runtime's own optimizers. */
  async function optimizedProducts(graph: typeof plain): Promise<number> {
    const folder = mkdtempSync(join(tmpdir(), "patchwise-optimized-"));
    try {
      const path = join(folder, "model.onnx");
      const { model } = lower(simplify(graph));
      const session = await InferenceSession.create(model, { optimizedModelFilePath: path });
      await session.release();
      return readFileSync(path, "latin1").split(/Gemm#|FusedGemm/).length - 1;
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  it("computes the same", async () => {
    const inputs = Object.fromEntries(
      [x, w1, w2].map((leaf, i) => {
        const shape = leaf.shape as number[];
        const size = shape[0]! * shape[1]!;
        const values = Array.from({ length: size }, (_, j) => Math.sin(1.3 * j + i));
        return [["x", "a.w", "b.w"][i]!, ndarray("float32", shape, values)];
      }),
    );
    const [a, b] = [await backend.compile(plain), await backend.compile(recomputed)];
    const [one, other] = [await a.run(inputs), await b.run(inputs)];
    for (const name of Object.keys(plain.outputs)) {
      expect(toNumbers(other[name]!)).toEqual(toNumbers(one[name]!));
    }
    await a.dispose();
    await b.dispose();
  });

  it("is not removed by ONNX Runtime's optimizers", async () => {
    // Each of two blocks computes its two products again; the second one's result is not needed.
    expect(await optimizedProducts(recomputed)).toBeGreaterThanOrEqual(
      (await optimizedProducts(plain)) + 2,
    );
  });
});
