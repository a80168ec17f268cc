/** patchwise studio: serves the studio on this machine, a page that draws, looks inside the model and trains. */
import type { Command } from "commander";
import { writePage } from "../server/page.ts";
import { startPage } from "../server/server.ts";
import {
  addServerOptions,
  type CommonServerOptions,
  serveUntilSignal,
  wholeOption,
} from "./server-options.ts";
import { writeLine } from "./terminal.ts";

export function addStudio(program: Command): void {
  const command = program
    .command("studio")
    .summary("open a page that draws, looks inside the model and trains")
    .description(
      "Serves the studio on this machine: a page that draws, shows what the bundled model attends to, compares settings, and " +
        "trains. The server draws and trains for it, with the models and LoRAs that it is given, and the page can do the same with the " +
        "bundled model by itself. With --write the page is written to a folder for any static host.",
    )
    .option("--port <n>", "port on 127.0.0.1", wholeOption("--port", 0), 8188)
    .option("--page-only", "serve the page alone, which then computes everything itself")
    .option("--write <dir>", "write the whole page to a folder, in place of serving it");
  addServerOptions(command).action(studio);
}

interface StudioOptions extends CommonServerOptions {
  readonly port: number;
  readonly pageOnly?: true;
  readonly write?: string;
}

async function studio(options: StudioOptions): Promise<void> {
  const { port, pageOnly, write } = options;
  if (write !== undefined) {
    await writePage(write);
    writeLine(process.stdout, `Wrote the studio to ${write}; any static host can serve it.`);
    return;
  }
  if (pageOnly) {
    const { url } = await startPage(port);
    writeLine(process.stderr, `The studio is at ${url}/ until Ctrl-C.`);
    return;
  }
  await serveUntilSignal(
    options,
    { host: "127.0.0.1", port, page: true },
    (url) => `The studio is at ${url}/, with ${options.model.join(", ")}`,
  );
}
