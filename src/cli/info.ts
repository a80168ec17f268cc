/**
 * patchwise info MODEL: prints the cost of a model, counted from its graph.
 */
import type { Command } from "commander";
import {
  countMultiplyAdds,
  countParameters,
  estimateMemory,
  estimateTogether,
} from "../engine/passes/cost.ts";
import { nearestNames, quote, UsageError } from "../engine/errors.ts";
import { graphOf, leafName } from "../engine/graph/graph.ts";
import { declaredTensors } from "../nn/params.ts";
import { canDrop, networkPresets } from "../models/network.ts";
import {
  type ImageModel,
  latentSize,
  pictureSize,
  type PictureSize,
  type SizedModel,
  type StagedModel,
  stagesOf,
  tracedForDrawing,
} from "../pipelines/image-model.ts";
import { memoryPlan } from "../pipelines/programs.ts";
import type { GenerateSettings } from "../pipelines/settings.ts";
import { weightBytes, weightLabel } from "../engine/runtime/stored-weight.ts";
import { shippedModels } from "../models/card-node.ts";
import { familyOf } from "../models/families.ts";
import type { CountedPreset } from "../models/family.ts";
import { openModel } from "../pipelines/open/open-node.ts";
import { type LonePart, lonePart } from "../pipelines/open/lone-part.ts";
import type { OpenModelOptions } from "../pipelines/open/options.ts";
import { countedPresets } from "../pipelines/counted-presets.ts";
import { parseHubId } from "../weights/hub/id.ts";
import { openSafetensorsFile } from "../weights/safetensors/file-node.ts";
import { closing } from "../weights/sources/closing.ts";
import { exists } from "../weights/sources/folder-node.ts";
import { showingDownload } from "./download-progress.ts";
import { addModelOptions, modelOptions, sizeOption } from "./options.ts";
import { writeJsonLine, writeText } from "./terminal.ts";

interface StageCosts {
  readonly name: string;
  readonly parameters: number;
  readonly memory_bytes: number;
  /** Bytes of its weights by the type in which they are stored; left out for a preset, which has none. */
  readonly stored_bytes?: Readonly<Record<string, number>>;
}

/** The settings with which a model draws unless asked otherwise. */
type Defaults = Pick<GenerateSettings, "steps" | "guidance"> & {
  /** In pixels; left out where the part that decodes them is missing. */
  readonly width?: number;
  readonly height?: number;
  readonly sampler: string;
};

interface Costs {
  /** The family of the network, such as "FLUX.2"; left out for what is no network that draws. */
  readonly family?: string;
  /** The settings that were found for drawing; left out for a preset. */
  readonly defaults?: Defaults;
  /** Parameters and multiply-adds (in 10⁹) of the network. */
  readonly parameters: number;
  readonly gflops: number;
  readonly tokens: number;
  /** The length of the text for which the Gflops are counted, for networks that read one. */
  readonly text_tokens?: number;
  /** Bytes to draw one picture with all programs in memory. */
  readonly memory_bytes: number;
  /** Bytes to draw one picture with one program in memory at a time and the weights in their stored type. */
  readonly least_memory_bytes: number;
  /** The stages of drawing, in order. */
  readonly stages: readonly StageCosts[];
  /** Bytes of the network's weights by the type in which they are stored; left out for a preset, which has none. */
  readonly stored_bytes?: Readonly<Record<string, number>>;
  /** A sentence that names the parts that are missing for drawing. */
  readonly missing?: string;
}

const presetNames = [...networkPresets().keys(), ...countedPresets().keys()];

export function addInfo(program: Command): void {
  addModelOptions(program.command("info"))
    .summary("count a model's parameters, Gflops, tokens and memory")
    .description(
      "Counts the parameters of a model's network, the multiply-adds of one forward pass for one image (in 10⁹, which " +
        "papers call Gflops), the tokens of one image, and the peak memory of drawing one picture on the CPU, in total and " +
        "by stage. Nothing is run.",
    )
    .argument(
      "<model>",
      "name of a preset or of a bundled model, a folder, a file, or owner/name on the Hugging Face Hub",
    )
    .option("--size <WxH>", "size of the picture in pixels; the model's own by default", sizeOption)
    .option(
      "--json",
      "print one JSON object: { family, defaults, parameters, gflops, tokens, memory_bytes, least_memory_bytes, stages, stored_bytes, missing }",
    )
    .addHelpText("after", `\nPresets: ${presetNames.join(", ")}`)
    .action(info);
}

interface InfoOptions extends OpenModelOptions {
  readonly size?: PictureSize;
  readonly json?: true;
}

async function info(model: string, options: InfoOptions): Promise<void> {
  const counted = countedPresets().get(model) ?? (await partInFile(model));
  const described = counted ?? (await describe(model, modelOptions(options)));
  const costs =
    "graph" in described ? countedCosts(model, described) : costsOf(described, options.size);
  const drawn = "graph" in described ? described.of : described.network.frames ? "clip" : "image";
  if (options.json) writeJsonLine(process.stdout, costs);
  else writeText(process.stdout, text(model, costs, drawn));
}

/** The text encoder or the autoencoder that a file is; undefined for anything else. */
async function partInFile(path: string): Promise<LonePart | undefined> {
  if (!/\.(safetensors|gguf)$/i.test(path) || !(await exists(path))) return undefined;
  return closing(await openSafetensorsFile(path), async (file) => lonePart(file));
}

type Described = StagedModel &
  SizedModel &
  Pick<ImageModel, "missingParts"> &
  Partial<Pick<ImageModel, "process" | "defaults">>;

async function describe(model: string, options: OpenModelOptions): Promise<Described> {
  const network = networkPresets().get(model);
  if (network) return { name: model, network, weights: () => undefined };
  const shipped = await shippedModels();
  if (shipped.includes(model) || (await exists(model)) || parseHubId(model)) {
    const opened = await showingDownload(model, (onProgress) =>
      openModel(model, options, { onProgress }),
    );
    await opened.close();
    return opened;
  }
  const known = [...presetNames, ...shipped];
  const nearest = nearestNames(model, known);
  throw new UsageError(
    `There is no model ${quote(model)}, nor a folder or file of that name; ${nearest.length > 0 ? `the nearest are ${nearest.join(", ")}` : `the bundled ones are ${shipped.join(", ")}, and patchwise info --help lists the presets`}.`,
  );
}

function costsOf(model: Described, pixels: InfoOptions["size"]): Costs {
  const { network } = model;
  const size = latentSize(pixels ?? {}, model);
  // With guidance the network runs on two rows a picture: one conditional, one unconditional.
  const rows = canDrop(network) ? 2 : 1;
  const plan = memoryPlan(stagesOf(model), { size, texts: rows, rows });
  const traced = tracedForDrawing(network, size);
  const graph = graphOf({ output: traced.output });
  return {
    family: familyOf(network).title,
    ...defaultsOf(model),
    // Published files hold weights that some sizes of pictures do not need.
    parameters: countParameters({ parameters: declaredTensors(traced.params) }),
    gflops: countMultiplyAdds(graph, 1) / 1e9,
    tokens: traced.tokens,
    ...(network.condition.kind === "text" && { text_tokens: network.condition.length }),
    memory_bytes: estimateTogether(plan.map(({ memory }) => memory)),
    least_memory_bytes: Math.max(...plan.map(({ least }) => least.total)),
    stages: plan.map(({ stage, memory }) => ({
      name: stage.name,
      parameters: countParameters(stage.graph()),
      memory_bytes: memory.total,
      ...storedBytes(stage, stage.graph().parameters.map(leafName)),
    })),
    ...storedBytes(model, [...traced.params.declared.keys()]),
    ...(model.missingParts !== undefined && { missing: model.missingParts }),
  };
}

function defaultsOf(model: Described): Pick<Costs, "defaults"> {
  const { process, defaults } = model;
  if (!process || !defaults) return {};
  const { steps, guidance } = defaults;
  return {
    defaults: {
      ...(isDecoded(model) && pictureSize({}, model)),
      steps,
      guidance,
      sampler: process.sampler,
    },
  };
}

/** Returns true if the size in pixels is known: the network draws them itself, or the autoencoder is there. */
function isDecoded({ decoder, clipDecoder, network }: Described): boolean {
  return Boolean(decoder ?? clipDecoder) || network.channels === 1 || network.channels === 3;
}

function storedBytes(
  { weights }: Pick<StagedModel, "weights">,
  names: readonly string[],
): Pick<Costs, "stored_bytes"> {
  const stored = names.flatMap((name) => weights(name) ?? []);
  const bytes: Record<string, number> = {};
  for (const weight of stored) {
    const label = weightLabel(weight);
    bytes[label] = (bytes[label] ?? 0) + weightBytes(weight);
  }
  return stored.length === 0 ? {} : { stored_bytes: bytes };
}

/** The costs of a single graph, for one text or image. */
function countedCosts(name: string, preset: CountedPreset & Partial<LonePart>): Costs {
  const { tokens, weights = () => undefined } = preset;
  const graph = preset.graph();
  const parameters = countParameters(graph);
  const memory_bytes = estimateMemory(graph, 1).total;
  return {
    parameters,
    gflops: countMultiplyAdds(graph, 1) / 1e9,
    tokens,
    memory_bytes,
    least_memory_bytes: memory_bytes,
    stages: [{ name, parameters, memory_bytes }],
    ...storedBytes({ weights }, graph.parameters.map(leafName)),
  };
}

function text(model: string, costs: Costs, of: CountedPreset["of"]): string {
  const { stages, memory_bytes: together, least_memory_bytes: least } = costs;
  const several = stages.length > 1;
  const { family, defaults } = costs;
  const rows = [
    ...(family === undefined ? [] : [["family", family]]),
    ...(defaults
      ? [
          [
            "draws",
            `${defaults.width === undefined ? "" : `${defaults.width}×${defaults.height} pixels `}in ${defaults.steps} steps, guidance ${defaults.guidance}, sampler ${defaults.sampler}`,
          ],
        ]
      : []),
    ["parameters", costs.parameters.toLocaleString("en")],
    ["Gflops", `${costs.gflops.toFixed(2)} (10⁹ multiply-adds, one forward pass of one ${of})`],
    // A U-Net has no tokens.
    ...(costs.tokens === 0
      ? []
      : [
          [
            "tokens",
            `${costs.tokens.toLocaleString("en")}${costs.text_tokens === undefined ? "" : `, and ${costs.text_tokens} of the text`}`,
          ],
        ]),
    ...Object.entries(costs.stored_bytes ?? {}).map(([label, bytes], i) => [
      i === 0 ? "weights" : "",
      `${mebibytes(bytes)} in ${label}`,
    ]),
    [
      "memory",
      `${mebibytes(together)} to ${uses[of]}${several || least < 0.9 * together ? `, ${mebibytes(least)} at least` : ""}${several ? ":" : ""}`,
    ],
    ...(several ? stages : []).map((stage) => [
      "",
      `${mebibytes(stage.memory_bytes)} for ${stage.name} (${stage.parameters.toLocaleString("en")} parameters${typesOf(stage)})`,
    ]),
  ];
  const missing = costs.missing === undefined ? "" : `${costs.missing}\n`;
  return `${model}\n${rows.map(([name, value]) => `  ${name!.padEnd(10)}  ${value}\n`).join("")}${missing}`;
}

/** The types in which the weights of a stage are stored. */
function typesOf({ stored_bytes: bytes }: StageCosts): string {
  return bytes === undefined ? "" : ` in ${Object.keys(bytes).join(", ")}`;
}

/** The tasks whose memory is estimated, as phrases. */
const uses = {
  text: "read one text",
  image: "draw one picture",
  clip: "draw one clip",
} as const satisfies Record<CountedPreset["of"], string>;

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}
