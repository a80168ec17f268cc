import { expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import { requireKnownSamples } from "../../src/training/tasks/checks.ts";

const classed = [
  { condition: { kind: "class", classes: 2, nullClass: true } },
  ["Across", "Down"],
] as const;

it("accepts classes by name or number, and any prompt", () => {
  const told = { condition: { kind: "text", width: 8, length: 4 } } as const;
  expect(() => requireKnownSamples(["across", "Down", "1"], ...classed)).not.toThrow();
  expect(() => requireKnownSamples(["a cat"], told)).not.toThrow();
  expect(() => requireKnownSamples(undefined, ...classed)).not.toThrow();
});

it("refuses unknown classes, and suggests the nearest name", () => {
  const free = { condition: { kind: "none" } } as const;
  expect(() => requireKnownSamples(["Down", "dwon"], ...classed)).toThrow(UsageError);
  expect(() => requireKnownSamples(["Down", "dwon"], ...classed)).toThrow(
    'samples.of has "dwon", which is not a class of the data; did you mean Down?',
  );
  expect(() => requireKnownSamples(["2"], ...classed)).toThrow("it has Across, Down.");
  expect(() => requireKnownSamples(["Down"], free)).toThrow(
    "the model takes neither prompts nor classes",
  );
});
