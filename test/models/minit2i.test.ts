import path from "node:path";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { miniT2IMeanFlowConfig } from "../../src/models/minit2i/checkpoint.ts";
import { miniT2IPresets } from "../../src/models/minit2i/config.ts";
import { miniT2I } from "../../src/models/minit2i/minit2i.ts";
import { networkSchema } from "../../src/models/network.ts";
import { createParams } from "../../src/nn/params.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");

it.each([
  ["minit2i", 94],
  ["minit2i_sampling", 27],
  ["minit2i_mf", 25],
])("the recording %s of the original is reproduced", async (folder, outputs) => {
  const report = await withRecording(path.join(fixtures, folder), (recording) =>
    verifyRecording(recording, async () => nodeBackend("cpu")),
  );
  expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
  expect(report.outputs).toHaveLength(outputs);
});

describe("the config", () => {
  const { unreadWidth: _, ...base } = miniT2IPresets["MiniT2I-B/16"];
  const refused = (change: object) => {
    const result = networkSchema().safeParse({ kind: "minit2i", ...base, ...change });
    return result.success ? [] : result.error.issues.map(({ message }) => message);
  };

  it("refuses heads that rotary positions of rows and columns cannot turn", () => {
    expect(refused({})).toEqual([]);
    expect(refused({ heads: 128 })[0]).toMatch(/128 heads .* multiples of 4/);
    expect(refused({ heads: 128, headSize: 8 })).toEqual([]);
    expect(refused({ size: [40, 40] })[0]).toContain("patches of 16×16");
  });

  it("reads every argument of the mean-flow network, and refuses others by name", () => {
    const read = (args: object) =>
      miniT2IMeanFlowConfig(fieldReader("args", args as Record<string, unknown>));
    expect(read({})).toEqual(miniT2IPresets["MiniT2I-B/16-MF"]);
    expect(read({ num_time_tokens: 3 }).meanFlow?.time).toBe(3);
    expect(() => read({ txt_hidden_size: 64 })).toThrow(FormatError);
    expect(() => read({ adaln: true })).toThrow('"adaln"');
  });
});

it("a mean-flow network asks for its step", () => {
  const inputs = {
    x: input("x", [batch, 3, 32, 32]),
    t: input("t", [batch]),
    y: input("y", [batch, 4, 1024]),
  };
  expect(() => miniT2I(createParams(), inputs, miniT2IPresets["MiniT2I-B/16-MF"])).toThrow(
    "give the span as `step`",
  );
});
