import { describe, expect, it } from "vitest";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch, resolve } from "../../src/engine/graph/shape.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { networkSchema, traceNetwork } from "../../src/models/network.ts";
import {
  chosenCode,
  promptChoices,
  type PromptPriorConfig,
} from "../../src/models/text-encoders/prompt-prior.ts";
import { createParams } from "../../src/nn/params.ts";
import { randomArray } from "../support/arrays.ts";

const config: PromptPriorConfig = { code: 3, subjects: 4, styles: 2, colours: 2, hidden: 5 };
const params = createParams();
const choices = {
  subject: input("subject", [batch, 4]),
  style: input("style", [batch, 2]),
  colour: input("colour", [batch, 3]),
  companion: input("companion", [batch, 5]),
};
const code = chosenCode(params, choices, config);
const weights = Object.fromEntries(
  [...params.declared].map(([name, { tensor }], i) => [
    name,
    randomArray(40 + i, "float64", resolve(tensor.shape, undefined), -1, 1),
  ]),
);

/** Logits that choose one of several. */
const oneOf = (chosen: number, count: number) =>
  Array.from({ length: count }, (_, i) => (i === chosen ? 10 : 0));

function codeOf(
  subject: readonly number[],
  style: number,
  colour = 0,
  companion: readonly number[] = oneOf(0, 5),
): number[] {
  const row = (values: readonly number[]) => ndarray("float64", [1, values.length], values);
  const given: Record<string, NdArray> = {
    subject: row(subject),
    style: row(oneOf(style, 2)),
    colour: row(oneOf(colour, 3)),
    companion: row(companion),
  };
  return toNumbers(evaluateFloat64(graphOf({ code }), { ...weights, ...given })["code"]!);
}

/** A row of the table in one style. */
const entry = (subject: number, style: number) =>
  toNumbers(weights["codes"]!).slice((subject * 2 + style) * 3, (subject * 2 + style) * 3 + 3);

/** The largest difference of two codes. */
function apart(one: readonly number[], other: readonly number[]): number {
  return Math.max(...other.map((x, i) => Math.abs(x - one[i]!)));
}

describe("chosenCode", () => {
  it("is the table's code of the subject in the style", () => {
    expect(code.shape).toEqual([batch, 1, 3]);
    for (const subject of [0, 1, 2, 3]) {
      for (const style of [0, 1])
        expect(apart(codeOf(oneOf(subject, 4), style), entry(subject, style))).toBeLessThan(1e-5);
    }
  });

  it("shows the likeliest subject alone, even where others are nearly as likely", () => {
    expect(apart(codeOf([1, 2, 1.2, 0], 0), entry(1, 0))).toBeLessThan(1e-5);
  });

  it("is changed by a colour and by a companion, each in its own way", () => {
    const plain = codeOf(oneOf(1, 4), 0);
    const [red, blue] = [codeOf(oneOf(1, 4), 0, 1), codeOf(oneOf(1, 4), 0, 2)];
    const beside = codeOf(oneOf(1, 4), 0, 0, oneOf(3, 5));
    const other = codeOf(oneOf(1, 4), 0, 0, oneOf(4, 5));
    const all = [plain, red, blue, beside, other].map((each) =>
      each.map((x) => x.toFixed(6)).join(),
    );
    expect(new Set(all).size).toBe(5);
  });

  it("adds a companion by its code in the same style", () => {
    const changed = {
      ...weights,
      "compose.linear.weight": ndarray(
        "float64",
        [3, 6],
        [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1],
      ),
      "compose.linear.bias": ndarray("float64", [3], [0, 0, 0]),
      "compose.mlp.fc2.weight": ndarray("float64", [3, 5], new Array<number>(15).fill(0)),
      "compose.mlp.fc2.bias": ndarray("float64", [3], [0, 0, 0]),
    };
    const row = (values: readonly number[]) => ndarray("float64", [1, values.length], values);
    const found = evaluateFloat64(graphOf({ code }), {
      ...changed,
      subject: row(oneOf(2, 4)),
      style: row(oneOf(1, 2)),
      colour: row(oneOf(0, 3)),
      companion: row(oneOf(1, 5)),
    });
    const sum = entry(2, 1).map((x, i) => x + entry(0, 1)[i]!);
    expect(apart(toNumbers(found["code"]!), sum)).toBeLessThan(1e-5);
  });
});

it("reads choices from the words of a prompt and not from its padding", () => {
  const own = createParams();
  const [tokens, mask] = [input("tokens", [batch, 3, 6]), input("mask", [batch, 3], "bool")];
  const read = promptChoices(own, tokens, mask, config);
  const values = Object.fromEntries(
    [...own.declared].map(([name, { tensor }], i) => [
      name,
      randomArray(60 + i, "float64", resolve(tensor.shape, undefined), -1, 1),
    ]),
  );
  const run = (seed: number) => {
    const data = toNumbers(randomArray(7, "float64", [1, 3, 6], -1, 1));
    data.splice(12, 6, ...toNumbers(randomArray(seed, "float64", [6], -1, 1)));
    return evaluateFloat64(graphOf({ ...read }), {
      ...values,
      tokens: ndarray("float64", [1, 3, 6], data),
      mask: ndarray("bool", [1, 3], [1, 1, 0]),
    });
  };
  expect(run(1)).toEqual(run(2));
  expect(run(1)["companion"]!.shape).toEqual([1, 5]);
});

describe("a network with a prior", () => {
  const network = {
    kind: "dit",
    size: [4, 4],
    channels: 3,
    patch: 2,
    hidden: 16,
    depth: 1,
    heads: 2,
    mlpRatio: 4,
    learnedVariance: false,
    condition: { kind: "text", width: 3, length: 1 },
    block: { kind: "adaLN-zero" },
    patches: { kind: "linear" },
    positions: { kind: "sin-cos" },
    canvas: { width: 2 },
    rotary: null,
    norm: { kind: "layer", affine: false },
    feedForward: { kind: "swiglu" },
    qkNorm: null,
    prompt: { vocabulary: 9, wordWidth: 4, width: 8, depth: 1, heads: 2, length: 6, prior: config },
  };

  it("takes the ids of prompts of any length, and draws", () => {
    const traced = traceNetwork(networkSchema().parse(network), { drop: true });
    expect(traced.inputs["ids"]!.shape).toEqual([batch, 6]);
    expect(traced.inputs["mask"]!.shape).toEqual([batch, 6]);
    expect(traced.output.shape).toEqual([batch, 3, 4, 4]);
    expect(traced.params.declared.has("prompt_encoder.prior.codes")).toBe(true);
  });

  it("is refused if its condition is not one code", () => {
    const { error } = networkSchema().safeParse({
      ...network,
      condition: { kind: "text", width: 8, length: 6 },
    });
    expect(error?.issues[0]?.message).toBe(
      "the prompt encoder gives 1 tokens of width 3, but the condition is 6 of 8",
    );
  });
});
