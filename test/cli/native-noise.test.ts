/** Native libraries write to the terminal what their caller is told anyway. */
import { expect, it } from "vitest";
import { patchwise } from "../support/cli.ts";

it("shows nothing of ONNX Runtime's own messages if a device is not there", () => {
  const { err } = patchwise(["generate", "red heart", "--steps", "1", "--device", "cuda"], "/tmp");
  expect(err).not.toMatch(/onnxruntime:|\[[EW]:|\u001b/);
  expect(err).toMatch(/^emoji: opening\n/);
});
