import { afterAll, describe, expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import { checkComputation } from "../../src/pipelines/compute.ts";
import { stagesOf } from "../../src/pipelines/image-model.ts";
import { openModel, openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { stageMemory } from "../../src/pipelines/programs.ts";
import type { GenerateRequest } from "../../src/pipelines/settings.ts";
import { psnr } from "../../src/evaluation/psnr.ts";

const pipeline = await openPipeline("emoji");
afterAll(() => pipeline.dispose());

async function draw(request: GenerateRequest) {
  const pictures = await finished(
    pipeline.generate({ prompt: "red heart", seed: 3, steps: 4, ...request }),
  );
  return pictures[0]!;
}

describe("compute", () => {
  it("int8 draws nearly the picture of float32, which is the default", async () => {
    const plain = await draw({});
    expect((await draw({ compute: "float32" })).pixels).toEqual(plain.pixels);
    const quantized = await draw({ compute: "int8" });
    expect(quantized.pixels).not.toEqual(plain.pixels);
    expect(psnr(quantized, plain)).toBeGreaterThan(40);
    expect(pipeline.settings({ prompt: "dog", compute: "int8" })).toMatchObject({
      compute: "int8",
    });
  });

  it("int8 is refused where there is no kernel for it, and by name where it is misspelt", () => {
    expect(() => checkComputation("int8", "webgpu")).toThrow(UsageError);
    expect(() => checkComputation("int8", "webgpu")).toThrow("use cpu or wasm");
    expect(() => pipeline.settings({ prompt: "dog", compute: "int4" as "int8" })).toThrow(
      'compute must be one of float32, int8, got "int4"',
    );
  });

  it("int8 needs less memory for weights, which the plan of a drawing knows", async () => {
    const model = await openModel("emoji");
    const stages = stagesOf(model);
    const [plain, quantized] = (["float32", "int8"] as const).map(
      (compute) => stageMemory(stages.network([64, 64], { compute }), 1, "prepacked").weights,
    );
    await model.close();
    expect(quantized!).toBeLessThan(0.75 * plain!);
  });
});
