/**
 * patchwise info MODEL: what a model costs, counted from its graph.
 */
import type { Command } from "commander";
import { countMultiplyAdds, countParameters, peakMemory } from "../engine/cost.ts";
import { UsageError } from "../engine/errors.ts";
import { type Graph, graphOf } from "../engine/graph.ts";
import { nearestNames } from "../engine/nearest-names.ts";
import { ditPresets, traceDiT } from "../models/dit.ts";
import { quote } from "../weights/json.ts";

/** A model at the size that it is made for. */
interface Described {
  readonly graph: Graph;
  /** Length of the sequence of patches. */
  readonly tokens: number;
}

/** What is known by name. */
const presets: ReadonlyMap<string, () => Described> = new Map(
  Object.entries(ditPresets).map(([name, config]) => [
    name,
    () => {
      const { output, tokens } = traceDiT(config);
      return { graph: graphOf({ output }), tokens };
    },
  ]),
);

export function addInfo(program: Command): void {
  program
    .command("info")
    .summary("what a model costs: parameters, Gflops, tokens, memory")
    .description(
      "Counts a model's parameters, the multiply-adds of one forward pass (in 10⁹: what papers call Gflops), the " +
        "tokens of one image, and the most memory that the pass takes in float32. Nothing is run.",
    )
    .argument("<model>", "name of a preset")
    .option("--json", "print one JSON object: { parameters, gflops, tokens, memory_bytes }")
    .addHelpText("after", `\nPresets: ${[...presets.keys()].join(", ")}`)
    .action(info);
}

function info(model: string, options: { json?: true }): void {
  const { graph, tokens } = describe(model);
  const costs = {
    parameters: countParameters(graph),
    gflops: countMultiplyAdds(graph, 1) / 1e9,
    tokens,
    memory_bytes: peakMemory(graph, 1).total,
  };
  process.stdout.write(options.json ? `${JSON.stringify(costs)}\n` : text(model, costs));
}

function describe(model: string): Described {
  const preset = presets.get(model);
  if (preset) return preset();
  const nearest = nearestNames(model, presets.keys());
  const names = nearest.length > 0 ? nearest : [...presets.keys()];
  throw new UsageError(
    `There is no model ${quote(model)}; ${nearest.length > 0 ? "the nearest" : "known"} are ${names.join(", ")}.`,
  );
}

function text(
  model: string,
  costs: { parameters: number; gflops: number; tokens: number; memory_bytes: number },
): string {
  const rows = [
    ["parameters", costs.parameters.toLocaleString("en")],
    ["Gflops", `${costs.gflops.toFixed(2)} (10⁹ multiply-adds, one forward pass of one image)`],
    ["tokens", costs.tokens.toLocaleString("en")],
    ["memory", `${(costs.memory_bytes / 2 ** 20).toFixed(0)} MiB`],
  ];
  return `${model}\n${rows.map(([name, value]) => `  ${name!.padEnd(10)}  ${value}\n`).join("")}`;
}
