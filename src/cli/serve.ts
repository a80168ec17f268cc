/** patchwise serve: draws for other programs, over HTTP. */
import type { Command } from "commander";
import {
  addServerOptions,
  type CommonServerOptions,
  serveUntilSignal,
  wholeOption,
} from "./server-options.ts";

interface ServeOptions extends CommonServerOptions {
  readonly host: string;
  readonly port: number;
  readonly token?: string;
}

export function addServe(program: Command): void {
  const command = program
    .command("serve")
    .summary("draw for other programs, over HTTP")
    .description(
      "Serves models over HTTP: its own interface of jobs (/api, described by /openapi.json), OpenAI's for images (/v1), and " +
        "that of AUTOMATIC1111's web UI (/sdapi/v1). Jobs and their pictures are kept in a folder, and survive a restart.",
    );
  addServerOptions(command)
    .option(
      "--host <address>",
      "address to listen on; others than 127.0.0.1 need a token",
      "127.0.0.1",
    )
    .option("--port <n>", "port to listen on", wholeOption("--port", 0), 7860)
    .option(
      "--token <text>",
      "what requests must send as Authorization: Bearer TOKEN; better given as PATCHWISE_TOKEN, which other users of the machine cannot see",
    )
    .action(serve);
}

async function serve(options: ServeOptions): Promise<void> {
  const { host, port, token = process.env["PATCHWISE_TOKEN"] } = options;
  await serveUntilSignal(
    options,
    { host, port, token },
    (url) => `Serving ${options.model.join(", ")} at ${url}`,
  );
}
