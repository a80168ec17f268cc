import path from "node:path";
import { describe, expect, it } from "vitest";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");

describe("recordings of diffusion processes and samplers", () => {
  it.each(["dit_diffusion", "dit_diffusion_wide", "samplers", "samplers_wide", "sd3_sampling"])(
    "%s: every output is within its tolerance",
    async (folder) => {
      const report = await withRecording(path.join(fixtures, folder), async (recording) =>
        verifyRecording(recording, async () => nodeBackend("cpu")),
      );
      expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
      expect(report.outputs.length).toBeGreaterThan(20);
    },
  );

  it("dit_diffusion with its own weights is the DiT of its args.dit_args", async () => {
    const report = await withRecording(path.join(fixtures, "dit_diffusion"), async (recording) => {
      const { config, model } = recording;
      return verifyRecording({ ...recording, model: { ...model!, config } }, async () =>
        nodeBackend("cpu"),
      );
    });
    expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
    expect(report.outputs.some(({ name }) => name.startsWith("out.dit_cfg_"))).toBe(true);
  });

  it("sd3_sampling without a skip_layer_config has the trajectories without skip-layer guidance", async () => {
    const report = await withRecording(path.join(fixtures, "sd3_sampling"), async (recording) => {
      const { config, io } = recording;
      const args = { ...(config.fields["args"] as object), skip_layer_config: null };
      const entries = new Map([...io.entries].filter(([name]) => !name.includes(".slg.")));
      const fields = { ...config.fields, args };
      const plain = { ...recording, config: { ...config, fields }, io: { ...io, entries } };
      return verifyRecording(plain, async () => nodeBackend("cpu"));
    });
    expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
    expect(report.outputs.length).toBeGreaterThan(10);
  });
});
