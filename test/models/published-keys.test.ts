import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { countParameters } from "../../src/engine/passes/cost.ts";
import { families } from "../../src/models/families.ts";
import type { NetworkFamily } from "../../src/models/family.ts";
import { networkPresets, traceNetwork } from "../../src/models/network.ts";
import { declaredTensors } from "../../src/nn/params.ts";
import { checkKeys, sameKeys } from "../../src/weights/check-keys.ts";
import { type Weights, weightsOf } from "../../src/weights/safetensors/safetensors.ts";

const folder = path.resolve(import.meta.dirname, "../fixtures/keys");

/** Names and shapes of a published checkpoint, without its numbers. */
function published(file: string, change = (shapes: Record<string, number[]>) => shapes): Weights {
  const text = readFileSync(path.join(folder, `${file}.json`), "utf8");
  const entries = Object.entries(change(JSON.parse(text) as Record<string, number[]>)).map(
    ([name, shape]) => [name, { name, shape, source: { name: file } }] as const,
  );
  const nothing = () => Promise.resolve();
  return weightsOf(file, new Map(), new Map(entries) as unknown as Weights["entries"], nothing);
}

const familyOf = (kind: string): NetworkFamily => families.get(kind)!;

/** The weights of an original file under the family's own names. */
const own = ({ original }: NetworkFamily, weights: Weights) =>
  original!.weights?.(weights) ?? weights;

describe.each([
  ["FLUX.1-dev", "flux", "FLUX.1-dev", 11_901_408_320],
  ["FLUX.1-schnell", "flux", "FLUX.1-schnell", 11_891_178_560],
  ["FLUX.2-klein-4B", "flux2", "FLUX.2-klein-4B", 3_875_544_576],
  ["MiniT2I-B/16", "minit2i", "MiniT2I-B-16", 258_122_880],
  ["MiniT2I-B/16-MF", "minit2i", "MiniT2I-B-16-MF-flax", 262_076_544],
  ["MiniT2I-L/16", "minit2i", "MiniT2I-L-16", 911_766_696],
  ["Z-Image-Turbo", "z-image", "Z-Image-Turbo", 6_154_908_736],
  ["Z-Image-Turbo", "z-image", "Z-Image-Turbo-single-file", 6_154_908_736],
] as const)("%s (%s), in %s", (preset, kind, file, parameters) => {
  const family = familyOf(kind);
  const { params } = traceNetwork(networkPresets().get(preset)!);

  it("has every key in its shape, and no other", () => {
    expect(() => checkKeys(params, own(family, published(file)), sameKeys)).not.toThrow();
    expect(countParameters({ parameters: declaredTensors(params) })).toBe(parameters);
  });

  it("is recognised by its keys, by no other family, and gives its config", () => {
    const weights = published(file);
    const kinds = [...families.values()].filter(({ original }) => original?.recognises(weights));
    expect(kinds).toEqual([family]);
    const { kind: _, ...config } = networkPresets().get(preset)!;
    expect(family.original!.open(own(family, weights), () => config).config).toEqual(config);
  });

  it("is refused by name with a key missing, extra or of another shape", () => {
    const broken = published(file, (shapes) => {
      const [first, second] = Object.keys(shapes) as [string, string];
      return { ...without(shapes, first), [second]: [3, 5], "a.stranger": [1] };
    });
    const check = () => checkKeys(params, own(family, broken), sameKeys);
    expect(check).toThrow(/it lacks "/);
    expect(check).toThrow('the model has no "a.stranger"');
    expect(check).toThrow(/is \[3, 5\] instead of/);
  });
});

function without(shapes: Record<string, number[]>, name: string): Record<string, number[]> {
  const { [name]: _, ...rest } = shapes;
  return rest;
}

it("FLUX.2-klein-4B has every key under the names of diffusers", () => {
  const { diffusers } = familyOf("flux2");
  const config = networkPresets().get("FLUX.2-klein-4B")!;
  const weights = diffusers!.weights(published("FLUX.2-klein-4B-diffusers"), config);
  expect(() => checkKeys(traceNetwork(config).params, weights, diffusers!.keys)).not.toThrow();
});

it("files of Z-Image may have padding tokens of one axis, and a norm that is not used", () => {
  const family = familyOf("z-image");
  const weights = published("Z-Image-Turbo-single-file", (shapes) => ({
    ...shapes,
    x_pad_token: [3840],
    cap_pad_token: [3840],
    "norm_final.weight": [3840],
  }));
  const { params } = traceNetwork(networkPresets().get("Z-Image-Turbo")!);
  expect(() => checkKeys(params, own(family, weights), sameKeys)).not.toThrow();
});
