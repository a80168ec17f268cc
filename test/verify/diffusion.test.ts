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
});
