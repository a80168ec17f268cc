import { expect, it } from "vitest";
import { blocksUnder } from "../../src/weights/checkpoint-shapes.ts";

const entriesOf = (...keys: string[]) => new Map(keys.map((key) => [key, {} as never]));

it("counts blocks up to the first that is missing, however large the numbers of others are", () => {
  const entries = entriesOf("blocks.0.a", "blocks.1.a", "blocks.1.b", "blocks.999999999.a", "x.2");
  expect(blocksUnder({ entries }, "blocks")).toBe(2);
  expect(blocksUnder({ entries }, "others")).toBe(0);
});
