/** What makes a model draw what it draws, as one number: two machines draw the same pictures only with the same weights and config. */
import { createHash } from "node:crypto";
import { canonical } from "../../data/latents/folder-node.ts";
import { leafName } from "../../engine/graph/graph.ts";
import { readFileRange } from "../../engine/runtime/read-file-node.ts";
import { pick } from "../../engine/records.ts";
import {
  readWeight,
  type StoredWeight,
  weightFiles,
  weightLabel,
  weightType,
} from "../../engine/runtime/stored-weight.ts";
import { type ImageModel, latentSize, type Stage, stagesOf } from "../image-model.ts";
import { openModel, type OpenPipelineOptions } from "./open-node.ts";
import { openOptions } from "./options.ts";
import { closing } from "../../weights/sources/closing.ts";
import { sha256OfFile } from "../../weights/sources/hash-node.ts";
import { system } from "../../weights/sources/system-error-node.ts";

/**
 * Opens a model and hashes its config, its settings, its tokenizer where it is one of the files of a training, and the bytes of its
 * weights, wherever they lie.
 *
 * @returns 64 hexadecimal digits
 */
export async function modelDigest(source: string, options: OpenPipelineOptions): Promise<string> {
  const { loras, hub } = options;
  const given = pick<unknown>({ ...options }, (name) => Object.hasOwn(openOptions, name));
  return closing(await openModel(source, { loras, ...given }, hub), digestOf);
}

/** As `modelDigest`, of a model that is open. */
export async function digestOf(model: ImageModel): Promise<string> {
  const hash = createHash("sha256");
  const { network, defaults, classes, encoder, decoder, clipDecoder, process, loras } = model;
  const parts = {
    network,
    defaults,
    classes: classes && [...classes],
    tokenizer: encoder?.tokenizer,
    decoder: decoder?.config,
    clipDecoder: clipDecoder?.config,
    sampler: process.sampler,
    levels: process.levels(defaults.steps, { size: latentSize({}, model) }),
    loras: loras?.map(({ weight }) => weight),
  };
  hash.update(canonical(parts));
  const files = new Map<string, string>();
  for (const stage of networksOf(model)) {
    for (const parameter of stage.graph().parameters) {
      const name = leafName(parameter);
      const weight = stage.weights(name);
      if (!weight) continue;
      const type = weightType(weight);
      hash.update(`${name} ${weightLabel(weight)} ${type.dtype} ${type.shape.join("×")}\n`);
      hash.update(await contentOf(weight, files));
    }
  }
  return hash.digest("hex");
}

/** The programs that hold all of a model's weights. */
function networksOf(model: ImageModel): readonly Stage[] {
  const stages = stagesOf(model);
  const size = latentSize({}, model);
  const coder = stages.clipCoder("decode", size);
  const chunk = coder && coder.stage(coder.coder.graph(1, true));
  const all = [...stages.encoders, stages.network(size), stages.decoder(size), chunk];
  return all.filter((stage) => stage !== undefined);
}

/**
 * What a weight holds, by the whole files that it is in.
 *
 * @param files hashes of the files that were read already
 */
async function contentOf(weight: StoredWeight, files: Map<string, string>): Promise<string> {
  const paths = weightFiles(weight);
  if (paths.length === 0) {
    const { data } = await readWeight(weight, readFileRange);
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return createHash("sha256").update(bytes).digest("hex");
  }
  for (const path of paths) {
    if (!files.has(path)) files.set(path, await system(`read ${path}`, sha256OfFile(path)));
  }
  return paths.map((path) => files.get(path)).join(" ");
}
