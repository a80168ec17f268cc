/** Command lines as the real command parses them, without running them. */
import type { OptionValues } from "commander";
import { commandLine } from "../../src/cli/command-line.ts";

/**
 * Parses a command line, without the program's name.
 *
 * @returns the values of its options
 * @throws CommanderError or UsageError for what the command does not take
 */
export async function parsedCommand(words: readonly string[]): Promise<OptionValues> {
  const program = await commandLine(words[0]);
  let parsed: OptionValues | undefined;
  for (const command of program.commands) command.action(() => void (parsed = command.opts()));
  await program.parseAsync(["node", "patchwise", ...words]);
  if (!parsed) throw new Error(`patchwise ${words.join(" ")} is no command.`);
  return parsed;
}
