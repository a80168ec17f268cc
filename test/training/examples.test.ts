import { expect, it } from "vitest";
import { recipeSchema } from "../../src/diffusion/recipe.ts";
import { toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import type { NetworkConfig } from "../../src/models/network.ts";
import { examplesOf } from "../../src/training/tasks/examples.ts";
import { tinyNetwork } from "../support/tiny-model.ts";

/** Which of two pictures, the second of no known class, is learned without its condition. */
function dropped(condition: NetworkConfig["condition"]): number[] {
  const network = { ...tinyNetwork, condition } as NetworkConfig;
  const [height, width] = network.size;
  const batch = {
    pixels: new Uint8Array(2 * height * width * network.channels),
    labels: Int32Array.of(0, -1),
    captions: ["a cat", "a dog"],
  };
  const length = "length" in condition ? condition.length : 0;
  const inputs = examplesOf(batch, randomKey(0), {
    network,
    recipe: recipeSchema.parse({ process: "flow" }),
    tokenizer: {
      size: 1,
      encode: () => ({ ids: new Int32Array(length), mask: new Uint8Array(length), lost: "" }),
      unknownWords: () => [],
      countWords: () => ({ all: 0, lost: 0 }),
      unknownCharacters: () => [],
    },
    dropCondition: 0,
  });
  return toNumbers(inputs["drop"]!);
}

it("drops unknown classes, but no captions", () => {
  expect(dropped({ kind: "class", classes: 2, nullClass: true })).toEqual([0, 1]);
  expect(dropped({ kind: "text", width: 8, length: 4 })).toEqual([0, 0]);
});
