/**
 * patchwise export MODEL: writes the graph of a model as ONNX.
 */
import type { Command } from "commander";
import { quote, UsageError } from "../engine/errors.ts";
import { decoderMetadata, networkMetadata } from "../pipelines/export-metadata.ts";
import { type Exported, exportGraph } from "../pipelines/export-node.ts";
import {
  decoderGraph,
  latentSize,
  networkGraph,
  type PictureSize,
} from "../pipelines/image-model.ts";
import { openModel } from "../pipelines/open/open-node.ts";
import type { ChosenLora } from "../pipelines/open/lora-node.ts";
import type { OpenModelOptions } from "../pipelines/open/options.ts";
import { closing } from "../weights/sources/closing.ts";
import { addLoraOption, addModelOptions, modelOptions, sizeOption } from "./options.ts";
import { checkWritable } from "./output-files.ts";
import { writeJsonLine, writeLine, writeText } from "./terminal.ts";
import { version } from "./version.ts";

interface ExportCommandOptions extends OpenModelOptions {
  readonly out: string;
  readonly lora?: readonly ChosenLora[];
  readonly size?: PictureSize;
  readonly part: string;
  readonly half?: true;
  readonly plain?: true;
  readonly json?: true;
}

export function addExport(program: Command): void {
  addModelOptions(addLoraOption(program.command("export")))
    .summary("write a model as ONNX")
    .description(
      "Writes a program of a model as ONNX, with the weights inside, or from 2 GiB on beside it as X.onnx.data. The network " +
        "takes images, latents or codes x, times t (0 to 1000) and its condition: classes y, where the index after the last " +
        "class is the null class, or ids and mask of a text's tokens and drop, which says whether the text is dropped. Its " +
        "output is the prediction, with the variance in a second half of the channels if the network learns one. The metadata of the " +
        "file say what the numbers mean and at which times to draw; see docs/onnx.md.",
    )
    .argument("<model>", "name of a bundled model, a folder, or a file")
    .requiredOption("--out <file>", "an .onnx file")
    .option("--size <WxH>", "size of pictures in pixels; the model's own unless given", sizeOption)
    .option("--part <name>", "network, or the decoder of latents", "network")
    .option("--half", "store weights in float16; computation stays in float32")
    .option(
      "--plain",
      "use operators of the ONNX standard only, in place of ONNX Runtime's attention",
    )
    .option("--json", "print one JSON object: { files, inputs, outputs, metadata }")
    .action(exportModel);
}

async function exportModel(source: string, options: ExportCommandOptions): Promise<void> {
  const { out, part, half, plain } = options;
  if (part !== "network" && part !== "decoder") {
    throw new UsageError(`--part is ${quote(part)}; give network or decoder.`);
  }
  if (!/\.onnx$/i.test(out)) {
    throw new UsageError(`--out is ${quote(out)}; give a name that ends in .onnx.`);
  }
  await checkWritable([out]);
  const model = await openModel(source, { ...modelOptions(options), loras: options.lora });
  for (const warning of model.warnings ?? []) writeLine(process.stderr, `Warning: ${warning}`);
  await closing(model, async () => {
    const size = latentSize(options.size ?? {}, model);
    const { network, decoder, weights } = model;
    if (part === "decoder" && !decoder) {
      throw new UsageError(
        `${model.name} has no decoder, because it draws pixels; export its network instead.`,
      );
    }
    const exported =
      part === "network"
        ? await exportGraph(networkGraph(network, size), weights, out, {
            half,
            plain,
            metadata: { patchwise: version, ...networkMetadata(model, size) },
          })
        : await exportGraph(decoderGraph(decoder!, size), decoder!.weights, out, {
            half,
            plain,
            metadata: { patchwise: version, ...decoderMetadata(model) },
          });
    if (options.json) writeJsonLine(process.stdout, exported);
    else writeText(process.stdout, text(exported));
  });
}

function text({ files, inputs, outputs }: Exported): string {
  const ports = [
    ...inputs.map((port) => ["takes", port] as const),
    ...outputs.map((port) => ["gives", port] as const),
  ];
  const lines = ports.map(
    ([verb, { name, dtype, shape }]) => `  ${verb}  ${name} ${dtype} ${shape}\n`,
  );
  return `${files.join("\n")}\n${lines.join("")}`;
}
