import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";

const read = fieldReader("config.json", {
  size: 8,
  sizes: [1, 2],
  rate: 0.5,
  on: false,
  kind: "a",
  kinds: ["a", "b"],
  none: null,
  inner: { depth: 3, width: 0 },
  fraction: 1.5,
  text: "x".repeat(200),
});

describe("fieldReader", () => {
  it("returns the values of the fields", () => {
    expect(read.count("size")).toBe(8);
    expect(read.optionalCount("size")).toBe(8);
    expect(read.counts("sizes")).toEqual([1, 2]);
    expect(read.number("rate")).toBe(0.5);
    expect(read.flag("on", true)).toBe(false);
    expect(read.choice("kind", ["a", "b"])).toBe("a");
    expect(read.choices("kinds", ["a", "b"])).toEqual(["a", "b"]);
    expect(read.object("inner").count("depth")).toBe(3);
  });

  it.each(["none", "absent", "toString", "__proto__"])("returns the default for %s", (name) => {
    expect(read.count(name, 4)).toBe(4);
    expect(read.counts(name, [4])).toEqual([4]);
    expect(read.number(name, 0)).toBe(0);
    expect(read.flag(name, false)).toBe(false);
    expect(read.choice(name, ["a"], "a")).toBe("a");
    expect(read.optionalCount(name)).toBeUndefined();
    expect(read.isNull(name)).toBe(name === "none");
    expect(() => read.count(name)).toThrow(
      `config.json has no "${name}"; set it to a whole number of at least 1.`,
    );
  });

  it.each([
    [() => read.count("fraction"), '"fraction" = 1.5, but it must be a whole number of at least 1'],
    [() => read.count("text"), /"text" = "x{78}…, but it must be/],
    [() => read.counts("size"), '"size" = 8, but it must be a list of whole numbers'],
    [() => read.number("kind"), '"kind" = "a", but it must be a number'],
    [() => read.flag("size"), '"size" = 8, but it must be true or false'],
    [() => read.choice("kind", ["b", "c"]), '"kind" = "a", but it must be one of b, c'],
    [() => read.choices("kinds", ["b"]), '"kinds" = ["a","b"], but it must be a list of b'],
    [() => read.object("sizes"), '"sizes" = [1,2], but it must be an object'],
    [() => read.object("inner").count("width"), 'config.json ("inner") has "width" = 0'],
    [() => fieldReader("f", { x: NaN }).number("x"), '"x" = NaN, but it must be a number'],
  ])("refuses %s with a one-sentence error", (act, message) => {
    expect(act).toThrow(FormatError);
    expect(act).toThrow(message);
  });
});
