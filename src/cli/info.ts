/**
 * patchwise info MODEL: what a model costs, counted from its graph.
 */
import type { Command } from "commander";
import { countMultiplyAdds, countParameters, estimateMemory } from "../engine/cost.ts";
import { UsageError } from "../engine/errors.ts";
import { nearestNames } from "../engine/nearest-names.ts";
import { ditPresets } from "../models/dit.ts";
import { canDrop, type NetworkConfig } from "../models/index.ts";
import { decoderGraph, networkGraph, tracedForDrawing } from "../pipelines/graphs.ts";
import type { LatentDecoder } from "../pipelines/image-model.ts";
import { openModel, shippedModels } from "../pipelines/open-node.ts";
import { quote } from "../weights/json.ts";
import { exists } from "../weights/files-node.ts";

/** A model at the size that it is made for. */
interface Described {
  readonly network: NetworkConfig;
  /** Of models of latents that bring one. */
  readonly decoder?: Pick<LatentDecoder, "config"> | undefined;
}

interface Costs {
  /** Of the network. */
  readonly parameters: number;
  readonly gflops: number;
  readonly tokens: number;
  readonly memory_bytes: number;
}

export function addInfo(program: Command): void {
  program
    .command("info")
    .summary("what a model costs: parameters, Gflops, tokens, memory")
    .description(
      "Counts the parameters of a model's network, the multiply-adds of one forward pass for one image (in 10⁹: what " +
        "papers call Gflops), the tokens of one image, and the most memory that a process takes which draws one picture " +
        "on the CPU. Nothing is run.",
    )
    .argument("<model>", "name of a preset or of a model that comes along, a folder, or a file")
    .option("--vae <dir|file>", "Stable Diffusion's autoencoder, for models of latents without one")
    .option("--json", "print one JSON object: { parameters, gflops, tokens, memory_bytes }")
    .addHelpText("after", `\nPresets: ${Object.keys(ditPresets).join(", ")}`)
    .action(info);
}

async function info(model: string, options: { vae?: string; json?: true }): Promise<void> {
  const costs = costsOf(await describe(model, options.vae));
  process.stdout.write(options.json ? `${JSON.stringify(costs)}\n` : text(model, costs));
}

async function describe(model: string, vae: string | undefined): Promise<Described> {
  if (Object.hasOwn(ditPresets, model)) {
    return { network: { kind: "dit", ...ditPresets[model as keyof typeof ditPresets] } };
  }
  const shipped = await shippedModels();
  if (shipped.includes(model) || (await exists(model))) {
    const opened = await openModel(model, { vae });
    await opened.close();
    return opened;
  }
  const known = [...Object.keys(ditPresets), ...shipped];
  const nearest = nearestNames(model, known);
  const names = nearest.length > 0 ? nearest : known;
  throw new UsageError(
    `There is no model ${quote(model)}, nor a folder or file of that name; ${nearest.length > 0 ? "the nearest" : "known"} are ${names.join(", ")}.`,
  );
}

function costsOf({ network, decoder }: Described): Costs {
  const graph = networkGraph(network);
  // With guidance a picture is two rows: one with its condition, one without.
  const drawing = estimateMemory(graph, canDrop(network) ? 2 : 1);
  return {
    parameters: countParameters(graph),
    gflops: countMultiplyAdds(graph, 1) / 1e9,
    tokens: tracedForDrawing(network).tokens,
    memory_bytes: decoder ? withDecoder(drawing, network, decoder) : drawing.total,
  };
}

/** The network stays while the decoder runs, but what it computed is gone. */
function withDecoder(
  drawing: ReturnType<typeof estimateMemory>,
  { size }: NetworkConfig,
  { config }: Pick<LatentDecoder, "config">,
): number {
  const decoding = estimateMemory(decoderGraph(config, size), 1);
  const more = Math.max(0, decoding.activations - drawing.activations);
  return drawing.total + decoding.weights + decoding.inputs + more;
}

function text(model: string, costs: Costs): string {
  const rows = [
    ["parameters", costs.parameters.toLocaleString("en")],
    ["Gflops", `${costs.gflops.toFixed(2)} (10⁹ multiply-adds, one forward pass of one image)`],
    ["tokens", costs.tokens.toLocaleString("en")],
    ["memory", `${(costs.memory_bytes / 2 ** 20).toFixed(0)} MiB to draw one picture`],
  ];
  return `${model}\n${rows.map(([name, value]) => `  ${name!.padEnd(10)}  ${value}\n`).join("")}`;
}
