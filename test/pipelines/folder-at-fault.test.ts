import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import { openModel } from "../../src/pipelines/open/open-node.ts";
import { openSafetensorsFile, writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { smallModels, writeSmallFolder, writeSmallSplit } from "../support/flux-folders.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-at-fault-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const [folder, split] = ["folder", "split"].map((name) => path.join(scratch, name)) as [
  string,
  string,
];
beforeAll(async () => {
  await writeSmallFolder(folder, smallModels.klein);
  await writeSmallSplit(split, smallModels.klein);
});

it.each<[string, () => string, string]>([
  [
    "the network's folder",
    () => path.join(folder, "transformer"),
    "transformer is a part of a model in diffusers' layout; give the folder of the whole model, ",
  ],
  [
    "the autoencoder's folder",
    () => path.join(folder, "vae"),
    "vae is a part of a model in diffusers' layout; give the folder of the whole model, ",
  ],
  [
    "the list of parts",
    () => path.join(folder, "model_index.json"),
    "model_index.json only lists the parts of a model; give its folder, ",
  ],
  [
    "a folder without the list of parts",
    () => {
      const lost = path.join(scratch, "lost");
      cpSync(folder, lost, { recursive: true });
      rmSync(path.join(lost, "model_index.json"));
      return lost;
    },
    "lost lacks its model_index.json, which lists the parts of a model in diffusers' layout; download",
  ],
  [
    "the folder of a network's file",
    () => path.join(split, "diffusion_models"),
    "give the file of a network as the model, here flux2.safetensors.",
  ],
  [
    "a folder of many files",
    () => {
      const many = path.join(scratch, "many");
      mkdirSync(many);
      for (const name of "abcd") writeFileSync(path.join(many, `${name}.gguf`), "");
      return many;
    },
    "here one of 4 such as a.gguf, b.gguf and c.gguf.",
  ],
  [
    "an empty folder",
    () => mkdtempSync(path.join(scratch, "empty-")),
    " holds neither a model.json, as patchwise train writes it, nor a model_index.json, as diffusers",
  ],
  [
    "an older ending",
    () => {
      const old = path.join(scratch, "klein.sft");
      copyFileSync(path.join(split, "diffusion_models/flux2.safetensors"), old);
      return old;
    },
    "klein.sft has an older name of safetensors; rename it to klein.safetensors.",
  ],
])("%s is no model, and the error says what to give", async (_, place, message) => {
  const opened = openModel(place());
  await expect(opened).rejects.toThrow(UsageError);
  await expect(opened).rejects.toThrow(message);
});

it("an autoencoder without its encoder is refused", async () => {
  const [whole, part] = ["ae", "decoder"].map((name) =>
    path.join(split, "vae", `${name}.safetensors`),
  ) as [string, string];
  const file = await openSafetensorsFile(whole);
  const names = [...file.entries.keys()].filter((name) => !name.startsWith("encoder."));
  const tensors = await Promise.all(
    names.map(async (name) => [name, await file.read(name)] as const),
  );
  await file.close();
  await writeSafetensors(part, tensors);
  renameSync(whole, path.join(scratch, "whole.safetensors"));
  await expect(openModel(split)).rejects.toThrow(
    "decoder.safetensors holds the decoder of an autoencoder without its encoder; give a file of",
  );
});
