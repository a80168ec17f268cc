import path from "node:path";
import { describe, expect, it } from "vitest";
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import type { Recording } from "../../src/verify/recording.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import {
  bytesSource,
  openSafetensors,
  safetensorsBytes,
  type Weights,
} from "../../src/weights/index.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const backend = nodeBackend("cpu");

type Change = (tensors: Map<string, NdArray>) => void;

/** A copy in memory, with some tensors changed. */
async function changed(weights: Weights, change: Change): Promise<Weights> {
  const tensors = new Map<string, NdArray>();
  for (const name of weights.entries.keys()) tensors.set(name, await weights.read(name));
  change(tensors);
  return openSafetensors(bytesSource(safetensorsBytes(tensors), "changed"));
}

function verify(folder: string, change: (recording: Recording) => Promise<Partial<Recording>>) {
  return withRecording(path.join(fixtures, folder), async (recording) =>
    verifyRecording({ ...recording, ...(await change(recording)) }, async () => backend),
  );
}

/** Moves the largest number of a tensor by a share of it. */
function nudge(name: string, share: number): Change {
  return (tensors) => {
    const { data } = tensors.get(name) as NdArray<"float32">;
    const at = data.reduce((best, x, i) => (Math.abs(x) > Math.abs(data[best]!) ? i : best), 0);
    data[at]! *= 1 + share;
  };
}

describe("the verification of a network", () => {
  it("fails only the gradient that is off by 0.1 %", async () => {
    const name = "transformer_blocks.1.attn2.to_q.weight";
    const report = await verify("pixart_sigma", async ({ gradients }) => ({
      gradients: await changed(gradients!, nudge(name, 1e-3)),
    }));
    const failed = report.outputs.filter(({ ok }) => !ok);
    expect(failed.map((output) => output.name)).toEqual([`grads.${name}`]);
  });

  it("fails a nonzero gradient where terms should cancel", async () => {
    const name = "transformer_blocks.0.attn1.to_k.bias";
    const report = await verify("pixart_sigma", async ({ gradients }) => ({
      gradients: await changed(gradients!, (tensors) => {
        (tensors.get(name)!.data as Float32Array)[0] = 1e-6;
      }),
    }));
    expect(report.outputs.find((output) => output.name === `grads.${name}`)!.ok).toBe(false);
  });

  it("fails outputs and gradients if a weight differs", async () => {
    const report = await verify("pixart_sigma", async ({ model }) => ({
      model: {
        ...model!,
        weights: await changed(model!.weights, nudge("proj_out.bias", 0.5)),
      },
    }));
    const failed = report.outputs.filter(({ ok }) => !ok).map(({ name }) => name);
    expect(failed).toContain("out.y");
    expect(failed).toContain("grads.__loss__");
  });

  it.each<[string, string, (recording: Recording) => Promise<Partial<Recording>>]>([
    [
      "weights that the model has not",
      'changed does not fit the model: the model has no "extra"',
      async ({ model }) => ({
        model: {
          ...model!,
          weights: await changed(model!.weights, (tensors) => {
            tensors.set("extra", tensors.get("proj_out.bias")!);
          }),
        },
      }),
    ],
    [
      "gradients of weights that the model has not",
      'changed has a gradient of "extra", but the model has no such weight',
      async ({ gradients }) => ({
        gradients: await changed(gradients!, (tensors) => {
          tensors.set("extra", tensors.get("proj_out.bias")!);
        }),
      }),
    ],
    ["no weights", "pixart_sigma has no weights.safetensors", async () => ({ model: undefined })],
    [
      "a missing input",
      'pixart_sigma has no tensor "in.timestep" in changed',
      async ({ io }) => ({
        io: await changed(io, (tensors) => tensors.delete("in.timestep")),
      }),
    ],
  ])("refuses %s", async (_, message, change) => {
    await expect(verify("pixart_sigma", change)).rejects.toThrow(message);
  });

  it("counts negative states of a Qwen3 from the end, and refuses states that it has not", async () => {
    const listing = (states: readonly number[]) =>
      verify("qwen3", async ({ config, io }) => ({
        config: { ...config, fields: { ...config.fields, klein_layers: states } },
        io: await changed(io, (tensors) => {
          for (const name of tensors.keys()) {
            if (!/^in\.case0\.|^out\.case0\.klein$/.test(name)) tensors.delete(name);
          }
        }),
        gradients: undefined,
      }));
    const report = await listing([2, 3 - 7, 5]);
    expect(report.outputs.map(({ name, ok }) => [name, ok])).toEqual([["out.case0.klein", true]]);
    await expect(listing([2, 7])).rejects.toThrow(
      'qwen3/config.json has the state 7 among its "klein_layers", but the model has the states 0 to 6',
    );
  });

  it("refuses a Z-Image's latents of several frames", async () => {
    const frames = verify("z_image", async ({ io }) => ({
      io: await changed(io, (tensors) => {
        const { dtype, shape, data } = tensors.get("in.case0.x0") as NdArray<"float32">;
        const twice = Float32Array.from([...data, ...data]);
        tensors.set("in.case0.x0", {
          dtype,
          shape: [shape[0]!, 2, ...shape.slice(2)],
          data: twice,
        });
      }),
    }));
    await expect(frames).rejects.toThrow("The recorded x0 has 2 frames");
  });

  it("refuses gradients for a family without gradients", async () => {
    const gradients = ({ model }: Recording) => changed(model!.weights, () => {});
    await expect(
      verify("autoencoder_kl", async (recording) => ({ gradients: await gradients(recording) })),
    ).rejects.toThrow("autoencoder_kl has a grads.safetensors, but this family has no gradients");
  });

  it("computes only the recorded outputs, such as those of a decoder", async () => {
    const report = await verify("autoencoder_kl", async ({ io }) => ({
      io: await changed(io, (tensors) => {
        for (const name of tensors.keys()) if (!/\.(z|decode)$/.test(name)) tensors.delete(name);
      }),
    }));
    expect(report.ok).toBe(true);
    expect(report.outputs.map(({ name }) => name)).toEqual(["out.decode"]);
  });
});
