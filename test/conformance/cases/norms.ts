/** Normalisations with their statistics, and fused attention. */
import type { OpName } from "../../../src/engine/graph/ops.ts";
import { batch } from "../../../src/engine/graph/shape.ts";
import { attention } from "../../../src/engine/graph/functional.ts";
import { applyMany, type Tensor } from "../../../src/engine/graph/tensor.ts";
import type { Case, CaseData } from "../case.ts";

/** Every output of a norm, of which most uses read only the first. */
function named(outputs: readonly Tensor[], ...names: string[]): Record<string, Tensor> {
  return Object.fromEntries(outputs.map((output, i) => [names[i]!, output]));
}

const halves = ["float16", "float64"] as const;

export const normCases = {
  layerNorm: [
    {
      name: "layerNorm with and without affine parameters",
      build: (data) => {
        const x = data.uniform([batch, 3, 13]);
        const [weight, bias] = [data.uniform([13]), data.uniform([13])];
        return {
          plain: x.layerNorm(),
          weight: x.layerNorm({ weight }),
          both: x.layerNorm({ weight, bias, epsilon: 1e-2 }),
          vector: data.uniform([7]).layerNorm(),
          deep: data.uniform([2, 1, 3, 1, 5]).layerNorm(),
        };
      },
    },
    {
      name: "layerNorm with its statistics",
      build: (data) =>
        named(
          applyMany("layerNorm", [data.uniform([batch, 3, 13])], { epsilon: 1e-5 }),
          "y",
          "mean",
          "inverse",
        ),
    },
    {
      name: "layerNorm of which only the statistics are read",
      build: (data) => {
        const outputs = applyMany("layerNorm", [data.uniform([batch, 7])], { epsilon: 1e-5 });
        return { inverse: outputs[2]! };
      },
    },
    {
      name: "layerNorm of a constant row and of a shifted row",
      build: (data) => {
        const x = data.values([5, 5, 5, 5, 101, 102, 103, 104], "float32", [2, 4]);
        return x.layerNorm();
      },
    },
    ...halves.map((dtype) => ({
      name: `layerNorm of ${dtype}`,
      build: (data: CaseData) =>
        data.uniform([batch, 13], { dtype }).layerNorm({
          weight: data.uniform([13], { dtype }),
          bias: data.uniform([13], { dtype }),
        }),
    })),
  ],
  rmsNorm: [
    {
      name: "rmsNorm with and without a weight",
      build: (data) => ({
        plain: data.uniform([batch, 3, 13]).rmsNorm(),
        weight: data.uniform([batch, 3, 13]).rmsNorm({ weight: data.uniform([13]), epsilon: 1e-2 }),
        vector: data.uniform([7]).rmsNorm(),
        deep: data.uniform([2, 1, 3, 1, 5]).rmsNorm(),
      }),
    },
    {
      name: "rmsNorm with its statistic",
      build: (data) =>
        named(
          applyMany("rmsNorm", [data.uniform([batch, 3, 13])], { epsilon: 1e-6 }),
          "y",
          "inverse",
        ),
    },
    {
      name: "rmsNorm of zeros",
      build: (data) => data.values([0, 0, 0, 0, 1, -1], "float32", [2, 3]).rmsNorm(),
    },
    ...halves.map((dtype) => ({
      name: `rmsNorm of ${dtype}`,
      build: (data: CaseData) =>
        data
          .uniform([batch, 13], { dtype })
          .rmsNorm({ weight: data.uniform([13], { dtype, low: 0.5, high: 1.5 }) }),
    })),
  ],
  groupNorm: [
    {
      name: "groupNorm in one, two and three dimensions",
      build: (data) => {
        const x = data.uniform([batch, 6, 3, 5]);
        return {
          groups: x.groupNorm(2),
          one: x.groupNorm(1),
          channels: x.groupNorm(6),
          line: data.uniform([batch, 4, 7]).groupNorm(2, 1e-2),
          video: data.uniform([batch, 2, 2, 3, 3]).groupNorm(2),
        };
      },
    },
    ...halves.map((dtype) => ({
      name: `groupNorm of ${dtype}`,
      build: (data: CaseData) => data.uniform([batch, 4, 3, 5], { dtype }).groupNorm(2),
    })),
  ],
  attention: [
    {
      name: "attention with one and several heads, to other tokens",
      build: (data) => {
        const [q, k, v] = [5, 7, 7].map((tokens) => data.uniform([batch, tokens, 12]));
        return {
          one: attention(q!, k!, v!, { heads: 1 }),
          three: attention(q!, k!, v!, { heads: 3 }),
          scaled: attention(q!, k!, v!, { heads: 2, scale: 0.5 }),
          wideValues: attention(q!, k!, data.uniform([batch, 7, 18]), { heads: 3 }),
          narrow: attention(
            data.uniform([batch, 1, 2]),
            data.uniform([batch, 1, 2]),
            data.uniform([batch, 1, 2]),
            {
              heads: 2,
            },
          ),
        };
      },
    },
    {
      name: "attention of many tokens, whose kernels work in tiles",
      build: (data) => {
        const [q, k, v] = [41, 70, 70].map((tokens) => data.uniform([batch, tokens, 32]));
        return {
          plain: attention(q!, k!, v!, { heads: 1 }),
          masked: attention(q!, k!, v!, { heads: 4, bias: data.uniform([batch, 1, 1, 70]) }),
        };
      },
    },
    {
      name: "attention with a bias of every broadcast shape",
      build: (data) => {
        const [q, k, v] = [5, 7, 7].map((tokens) => data.uniform([batch, tokens, 8]));
        const biased = (bias: Tensor) => attention(q!, k!, v!, { heads: 2, bias });
        return {
          full: biased(data.uniform([batch, 2, 5, 7])),
          heads: biased(data.uniform([2, 5, 7])),
          plane: biased(data.uniform([5, 7])),
          row: biased(data.uniform([7])),
          keys: biased(data.uniform([batch, 1, 1, 7])),
          queries: biased(data.uniform([2, 5, 1])),
          number: biased(data.uniform([])),
        };
      },
    },
    {
      name: "attention with its probabilities",
      build: (data) => {
        const [q, k] = [data.uniform([batch, 5, 12]), data.uniform([batch, 7, 12])];
        const v = data.uniform([batch, 7, 6]);
        const bias = data.uniform([3, 1, 7]);
        const attributes = { heads: 3, scale: 0.5 };
        const plain = applyMany("attention", [q, k, v], attributes);
        const biased = applyMany("attention", [q, k, v, bias], attributes);
        return {
          ...named(plain, "y", "probabilities"),
          ...named(biased, "biased", "biasedProbabilities"),
        };
      },
    },
    {
      name: "attention with masked keys",
      build: (data) => {
        const x = data.uniform([batch, 3, 4]);
        const mask = data.values(
          [0, -Infinity, -Infinity, 0, 0, -Infinity, 0, 0, 0],
          "float32",
          [3, 3],
        );
        return attention(x, x, x, { heads: 2, bias: mask });
      },
    },
    ...halves.map((dtype) => ({
      name: `attention of ${dtype}`,
      build: (data: CaseData) => {
        const [q, k, v] = [5, 7, 7].map((tokens) => data.uniform([batch, tokens, 8], { dtype }));
        return attention(q!, k!, v!, { heads: 2 });
      },
    })),
  ],
} satisfies { readonly [K in OpName]?: readonly Case[] };
