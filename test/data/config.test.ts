import { describe, expect, it } from "vitest";
import { dataSchema } from "../../src/data/config.ts";

const problem = (config: object) => dataSchema.safeParse(config).error?.issues[0]?.message;

describe("the config of a data set", () => {
  it("fills in defaults", () => {
    expect(dataSchema.parse({ kind: "images", path: "p" })).toEqual({
      kind: "images",
      path: "p",
      undescribed: "refuse",
      fit: "cover",
      background: "white",
      flip: false,
    });
    expect(dataSchema.parse({ kind: "idx" })).toMatchObject({
      path: "/usr/share/datasets/fashion-mnist",
      split: "train",
      background: "black",
    });
    expect(dataSchema.parse({ kind: "emoji" })).toMatchObject({ split: "train" });
  });

  it("refuses unknown fields and values", () => {
    expect(problem({ kind: "images", path: "p", labels: 1 })).toContain("labels");
    expect(problem({ kind: "folder", path: "p" })).toBeDefined();
    expect(problem({ kind: "images", path: "" })).toBe("a path cannot be empty");
    expect(problem({ kind: "tar", path: "p", background: "whitish" })).toBe(
      "a colour is white, black or six hexadecimal digits such as #ffcc00",
    );
    expect(problem({ kind: "parquet", path: "p", limit: 0 })).toBeDefined();
    expect(problem({ kind: "idx", fit: "stretch" })).toBeDefined();
  });
});
