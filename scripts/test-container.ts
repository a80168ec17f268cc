/**
 * Builds the image of Containerfile and serves from it: node scripts/run.mjs scripts/test-container.ts [--storage DIR [--built]]
 *
 * Needs root and buildah (Debian's package), but no daemon, no namespaces and no overlay file system: steps run in a changed root. The
 * base image is pulled unless the storage has it; with --built the storage has the whole image. It is started twice, by its own command and by that of
 * examples/kubernetes/patchwise.yaml beside a queue; each time its probes and its health check are asked, a request without the token is
 * refused, a picture is drawn, and SIGTERM ends it.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chownSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { parseArgs } from "node:util";
import { parseAllDocuments } from "yaml";
import { startNats } from "../test/support/nats.ts";

/** What buildah says of an image. */
interface Inspected {
  readonly Docker: {
    readonly config: {
      readonly User: string;
      readonly Entrypoint: readonly string[];
      readonly Cmd: readonly string[];
      readonly Healthcheck: { readonly Test: readonly string[] };
    };
  };
}

/** The deployment, as far as it is tried. */
interface Deployment {
  readonly kind: string;
  readonly spec: { template: { spec: { containers: [{ args: string[] }] } } };
}

const { values } = parseArgs({
  options: { storage: { type: "string" }, built: { type: "boolean", default: false } },
});
const root = path.resolve(import.meta.dirname, "..");
const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-container-"));
const storage = values.storage ?? path.join(scratch, "storage");
const IMAGE = "patchwise:test";
const TOKEN = "0123456789abcdef";
const PORT = 7860;
const url = `http://127.0.0.1:${PORT}`;

const options = [
  "--storage-driver",
  "vfs",
  "--root",
  storage,
  "--runroot",
  path.join(scratch, "run"),
];
const buildah = (...args: string[]) =>
  execFileSync("buildah", [...options, ...args], {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  }).trim();

function require(isSo: boolean, what: string): void {
  if (!isSo) throw new Error(`It does not hold that ${what}.`);
  console.error(`ok: ${what}`);
}

const begun = Date.now();
const build = ["--isolation", "chroot", "--format", "docker", "--file", "Containerfile"];
if (!values.built) buildah("bud", ...build, "--tag", IMAGE, ".");
const seconds = Math.round((Date.now() - begun) / 1000);
const container = buildah("from", "--pull-never", IMAGE);
const { config } = (JSON.parse(buildah("inspect", container)) as Inspected).Docker;
const mebibytes = Math.round(
  Number(
    execFileSync("du", ["-sm", buildah("mount", container)], { encoding: "utf8" }).split("\t")[0],
  ),
);

/** A command in the container. */
function within(command: readonly string[], more: readonly string[] = []): string[] {
  return [...options, "run", "--isolation", "chroot", ...more, container, "--", ...command];
}

interface Tried {
  readonly args: readonly string[];
  readonly output: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Serves by a command until all is seen. @returns the picture that it draws */
async function served({ args, output, env = {} }: Tried): Promise<Buffer> {
  const volume = mkdtempSync(path.join(scratch, "output-"));
  chownSync(volume, 1000, 1000);
  const given = Object.entries({ PATCHWISE_TOKEN: TOKEN, ...env });
  const child = spawn(
    "buildah",
    within(
      [...config.Entrypoint, ...args],
      [
        ...given.flatMap(([name, value]) => ["--env", `${name}=${value}`]),
        "--volume",
        `${volume}:${output}`,
      ],
    ),
    { stdio: ["ignore", "inherit", "inherit"] },
  );
  try {
    await ready(child);
    const status = async (at: string) => (await fetch(url + at)).status;
    require((await status("/healthz")) === 200, "/healthz answers 200");
    const check = spawn("buildah", within(config.Healthcheck.Test.slice(1)), { stdio: "inherit" });
    const [code] = (await once(check, "exit")) as [number];
    require(code === 0, "the health check succeeds");
    const asked = (token: string) =>
      fetch(`${url}/v1/images/generations`, {
        method: "POST",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
        body: JSON.stringify({ model: "emoji", prompt: "a red heart", seed: 7 }),
      });
    require((await asked("wrong")).status === 401, "a request without the token is refused");
    const { data } = (await (await asked(TOKEN)).json()) as { data: [{ b64_json: string }] };
    const picture = Buffer.from(data[0].b64_json, "base64");
    require(picture.subarray(1, 4).toString() ===
      "PNG", `a picture of ${picture.length} bytes is drawn`);
    return picture;
  } finally {
    await ended(child, args);
  }
}

async function ready(child: ChildProcess): Promise<void> {
  for (;;) {
    if (child.exitCode !== null) throw new Error("The server does not start.");
    const answer = await fetch(`${url}/readyz`).catch(() => undefined);
    if (answer?.ok) return require(true, "/readyz answers 200");
    await setTimeout(100);
  }
}

/** Signals the server itself, as a kubelet does: buildah does not pass signals on. */
async function ended(child: ChildProcess, args: readonly string[]): Promise<void> {
  // The name of the program is a path by now; those of buildah around it have a name before.
  const line = `/${[...config.Entrypoint, ...args].join(" ")}`;
  const isServer = (command: string) =>
    command.endsWith(line) && !command.slice(0, -line.length).includes(" ");
  const rows = execFileSync("ps", ["-eo", "pid=,ppid=,args="], { encoding: "utf8" })
    .trim()
    .split("\n")
    .map((row) => /(\d+)\s+(\d+)\s+(.*)/.exec(row)!);
  const below = (parent: string): string[] =>
    rows
      .filter(([, , of]) => of === parent)
      .flatMap(([, pid, , command]) => (isServer(command!) ? [pid!] : below(pid!)));
  for (const pid of below(String(child.pid))) process.kill(Number(pid), "SIGTERM");
  const code = child.exitCode ?? ((await once(child, "exit")) as [number])[0];
  require(code === 0, "SIGTERM ends the server with exit code 0");
}

const nats = await startNats(["--jetstream", "--auth", "secret"]);
try {
  require(config.User === "1000:1000", "its user is 1000:1000");
  const own = await served({ args: config.Cmd, output: "/var/lib/patchwise" });
  const manifest = readFileSync(path.join(root, "examples/kubernetes/patchwise.yaml"), "utf8");
  const { spec } = parseAllDocuments(manifest)
    .map((each) => each.toJS() as Deployment)
    .find(({ kind }) => kind === "Deployment")!;
  const [{ args }] = spec.template.spec.containers;
  const queue = nats.url.replace("//", "//secret@");
  const shared = await served({ args, output: "/scratch", env: { PATCHWISE_QUEUE: queue } });
  require(own.equals(shared), "both draw the same picture");
  console.log(JSON.stringify({ seconds, mebibytes }));
} finally {
  await nats.remove();
  buildah("rm", container);
  rmSync(scratch, { recursive: true, force: true });
}
