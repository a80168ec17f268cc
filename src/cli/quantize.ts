/**
 * patchwise quantize MODEL: writes a model's network with quantized weights, as GGUF or safetensors, and prints how much the weights change.
 */
import type { Command } from "commander";
import { quote, UsageError } from "../engine/errors.ts";
import { nodeBackend } from "../engine/runtime/ort-node.ts";
import type { ImageModel, PictureSize } from "../pipelines/image-model.ts";
import { openModel } from "../pipelines/open/open-node.ts";
import type { OpenModelOptions } from "../pipelines/open/options.ts";
import { finished, imagePipeline } from "../pipelines/pipeline.ts";
import {
  quantizeModel,
  type QuantizedLayer,
  type QuantizedType,
} from "../pipelines/quantize-node.ts";
import { closing } from "../weights/sources/closing.ts";
import { addModelOptions, modelOptions, numberOption, sizeOption } from "./options.ts";
import { checkWritable } from "./output-files.ts";
import { writeJsonLine, writeText } from "./terminal.ts";

const types: Readonly<Record<string, QuantizedType>> = {
  q8_0: "Q8_0",
  q4_0: "Q4_0",
  q4_k: "Q4_K",
  int8: "int8",
};

interface QuantizeOptions extends OpenModelOptions {
  readonly type: string;
  readonly out: string;
  readonly prompt?: string;
  readonly size?: PictureSize;
  readonly steps?: number;
  readonly seed: number;
  readonly json?: true;
}

export function addQuantize(program: Command): void {
  addModelOptions(program.command("quantize"))
    .summary("write a model's network with quantized weights")
    .description(
      "Writes the network of a model as a GGUF file with weights of 8 or 4 bits, or with --type int8 as safetensors with integers and a " +
        "scale for each row, as stable-diffusion.cpp and ComfyUI read them too, and prints how far the weights of each layer change, as a share of their size. With --prompt, also draws a picture with " +
        "both and prints how far the two differ.",
    )
    .argument("<model>", "a folder or a file")
    .requiredOption("--type <name>", `type of the weights: ${Object.keys(types).join(", ")}`)
    .requiredOption("--out <file>", "a .gguf file, or with --type int8 a .safetensors file")
    .option("--prompt <text>", "draw this with the model and with its quantized network")
    .option("--size <WxH>", "size of that picture; the model's own unless given", sizeOption)
    .option(
      "--steps <n>",
      "steps of that picture; the model's own unless given",
      numberOption("--steps"),
    )
    .option("--seed <n>", "seed of that picture", numberOption("--seed"), 0)
    .option("--json", "print one JSON object: { file, layers, picture }")
    .action(quantize);
}

async function quantize(source: string, options: QuantizeOptions): Promise<void> {
  const { out, prompt } = options;
  const named = options.type.toLowerCase();
  const type = Object.hasOwn(types, named) ? types[named] : undefined;
  if (!type) {
    throw new UsageError(
      `--type is ${quote(options.type)}; give one of ${Object.keys(types).join(", ")}.`,
    );
  }
  const ending = type === "int8" ? ".safetensors" : ".gguf";
  if (!out.toLowerCase().endsWith(ending)) {
    throw new UsageError(`--out is ${quote(out)}; give a name that ends in ${ending}.`);
  }
  await checkWritable([out]);
  const layers: QuantizedLayer[] = [];
  const picture = await closing(await openModel(source, modelOptions(options)), async (model) => {
    if (prompt !== undefined && model.missingParts !== undefined) {
      throw new UsageError(model.missingParts);
    }
    await quantizeModel(model, type, out, (layer) => layers.push(layer));
    return prompt === undefined ? undefined : difference(model, out, options);
  });
  if (options.json) writeJsonLine(process.stdout, { file: out, layers, picture });
  else writeText(process.stdout, text(out, layers, picture));
}

/** The mean difference of two pictures, in steps of a channel of 0 to 255. */
async function difference(
  model: ImageModel,
  file: string,
  { prompt, size, steps, seed }: QuantizeOptions,
): Promise<number> {
  const drawn = async (own: ImageModel) => {
    const pipeline = imagePipeline(own, nodeBackend("cpu"));
    const [made] = await finished(
      pipeline.generate({ prompt, seed, ...size, ...(steps !== undefined && { steps }) }),
    );
    await pipeline.dispose();
    return made!.pixels;
  };
  const own = await drawn({ ...model, close: async () => {} });
  const other = await closing(await openModel(file), async ({ weights }) =>
    drawn({ ...model, weights, close: async () => {} }),
  );
  return own.reduce((sum, value, i) => sum + Math.abs(value - other[i]!), 0) / own.length;
}

function text(
  file: string,
  layers: readonly QuantizedLayer[],
  picture: number | undefined,
): string {
  const width = Math.max(...layers.map(({ name }) => name.length));
  const rows = layers
    .filter(({ type }) => type !== "F32")
    .map(
      ({ name, type, error }) => `  ${name.padEnd(width)}  ${type}  ${(100 * error).toFixed(2)}%\n`,
    );
  const bytes = layers.reduce((sum, layer) => sum + layer.bytes, 0);
  const drawn =
    picture === undefined
      ? ""
      : `The picture differs by ${picture.toFixed(2)} of 255 on average.\n`;
  return `${rows.join("")}${file}: ${(bytes / 2 ** 20).toFixed(1)} MiB, ${rows.length} of ${layers.length} weights quantized.\n${drawn}`;
}
