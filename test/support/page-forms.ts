/** Draws a small model in the forms of its files in a page, beside Node with the same files. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { prefixed } from "../../src/engine/records.ts";
import { openModel, openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { quantizeModel, type QuantizedType } from "../../src/pipelines/quantize-node.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import type * as pageModule from "../browser/pipeline-page.ts";
import type { BrowserPage } from "./browser.ts";
import {
  originalWeights,
  type SmallModel,
  writeSmallCheckpoint,
  writeSmallFolder,
  writeSmallSplit,
} from "./flux-folders.ts";
import { storeForms } from "./model-forms.ts";

const blocks: readonly QuantizedType[] = ["Q8_0", "Q4_0", "Q4_K", "int8"];
/** Forms of a whole model, which hold the same numbers; the others are forms of the network's file. */
export const wholeForms: readonly string[] = [
  "diffusers",
  "ComfyUI",
  "ComfyUI in GGUF",
  "single file",
  "checkpoint",
];

/** The names of all forms. */
const pageForms: readonly string[] = [...wholeForms, ...Object.keys(storeForms), ...blocks];

/** Where the files of a form lie below the folder that the page is served. */
interface Place {
  readonly model: string;
  readonly textEncoders?: readonly string[];
  readonly vae?: string;
  readonly tokenizers?: string;
}

export interface PageDrawing {
  readonly form: string;
  /** The largest difference of a pixel between the page and Node, of 255. */
  readonly apart: number;
  readonly pixels: readonly number[];
}

/**
 * Draws a model in each form, on WebAssembly in a page and on the CPU in Node.
 *
 * @param served a folder that the page finds at `url`, with a slash at its end
 */
export async function* drawnInPage(
  page: BrowserPage<typeof pageModule>,
  { url, served }: { readonly url: string; readonly served: string },
  model: SmallModel,
  forms: readonly string[] = pageForms,
): AsyncGenerator<PageDrawing> {
  await writeSmallFolder(path.join(served, "diffusers"), model);
  await writeSmallSplit(path.join(served, "comfy"), model);
  const request = { prompt: "a red cat", seed: 3, width: 32, height: 32, steps: 1 };
  // The texts of MiniT2I are as long as in training.
  const words = model.family === "minit2i" ? {} : { promptTokens: 16 };
  for (const form of forms) {
    const place = await placed(served, model, form);
    const at = (root: string): Omit<Place, "model"> => {
      const { textEncoders, vae, tokenizers } = place;
      return {
        ...(textEncoders && { textEncoders: textEncoders.map((file) => root + file) }),
        ...(vae !== undefined && { vae: root + vae }),
        ...(tokenizers !== undefined && { tokenizers: root + tokenizers }),
      };
    };
    const options = { ...at(url), ...words };
    const [drawn] = await page.call("draw", url + place.model, "wasm", false, request, options);
    const root = `${served}${path.sep}`;
    await using pipeline = await openPipeline(root + place.model, { ...at(root), ...words });
    const [own] = await finished(pipeline.generate(request));
    const apart =
      drawn!.length === own!.pixels.length
        ? Math.max(...drawn!.map((value, i) => Math.abs(value - own!.pixels[i]!)))
        : Infinity;
    yield { form, apart, pixels: drawn! };
  }
}

async function placed(served: string, model: SmallModel, form: string): Promise<Place> {
  if (form === "diffusers") return { model: "diffusers" };
  const hasQwen3 = Object.values(model.encoders).some((fields) => fields["model_type"] === "qwen3");
  if (form === "ComfyUI in GGUF") {
    await writeSmallSplit(path.join(served, "gguf"), model, { gguf: true });
    const beside = hasQwen3 ? "gguf" : "comfy";
    return partsIn(
      beside,
      hasQwen3 ? ".gguf" : ".safetensors",
      model,
      `gguf/diffusion_models/${model.family}.gguf`,
    );
  }
  if (form === "checkpoint") {
    await writeSmallCheckpoint(path.join(served, "checkpoint"), "model", model);
    return { model: "checkpoint/model.safetensors", tokenizers: "checkpoint/" };
  }
  if (form === "ComfyUI") {
    return partsIn(
      "comfy",
      ".safetensors",
      model,
      `comfy/diffusion_models/${model.family}.safetensors`,
    );
  }
  const quantized = blocks.find((type) => type === form);
  const ending = quantized !== undefined && quantized !== "int8" ? ".gguf" : ".safetensors";
  const file = `alone/${form.replaceAll(/\W+/g, "-")}${ending}`;
  await mkdir(path.join(served, "alone"), { recursive: true });
  const target = path.join(served, file);
  const weights = originalWeights(model);
  if (quantized) {
    const opened = await openModel(path.join(served, "diffusers"));
    await quantizeModel(opened, quantized, target, () => {});
    await opened.close();
  } else {
    const stored =
      form === "single file"
        ? prefixed("model.diffusion_model.", weights)
        : storeForms[form]!(weights);
    await writeSafetensors(target, Object.entries(stored));
  }
  return partsIn("comfy", ".safetensors", model, file);
}

/** A network's file with the other parts of one of ComfyUI's folders. */
function partsIn(folder: string, ending: string, model: SmallModel, network: string): Place {
  const names: Readonly<Record<string, string>> = {
    clip_text_model: "clip_l",
    t5: "t5xxl_fp16",
    qwen3: "qwen_3_4b",
  };
  const encoders = Object.values(model.encoders).map(
    (fields) => `${folder}/text_encoders/${names[String(fields["model_type"])]!}${ending}`,
  );
  return {
    model: network,
    textEncoders: encoders,
    ...(model.vae && { vae: `${folder}/vae/ae.safetensors` }),
    // A GGUF file of Qwen3 has its own.
    ...(ending !== ".gguf" && { tokenizers: `${folder}/` }),
  };
}
