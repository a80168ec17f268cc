/** The blocks of the guides in languages other than TypeScript: commands, configs and JSON. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import type { Command } from "commander";
import { describe, expect, it } from "vitest";
import { parseDocument } from "yaml";
import { commandLine } from "../../src/cli/command-line.ts";
import { promptLines } from "../../src/bulk/lines.ts";
import { readPrompts } from "../../src/evaluation/prompts.ts";
import { toPng } from "../../src/pictures/png.ts";
import { openApi } from "../../src/server/openapi.ts";
import { trainingDraftOf } from "../../src/server/training-requests.ts";
import { readTrainingConfig } from "../../src/training/config/config-file.ts";
import { parsedCommand } from "../support/parsed-command.ts";

const root = path.resolve(import.meta.dirname, "../..");
const { scripts } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as {
  scripts: Readonly<Record<string, string>>;
};
const guides = readdirSync(path.join(root, "docs")).filter((name) => name.endsWith(".md"));
const pages = [
  "README.md",
  "ARCHITECTURE.md",
  "CONTRIBUTING.md",
  ...guides.map((name) => `docs/${name}`),
];

const blocks = pages.flatMap((page) => {
  const text = readFileSync(path.join(root, page), "utf8");
  return [...text.matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)].map(([whole, language, code], i) => ({
    name: `${page}, block ${i + 1}: ${whole.split("\n")[1]}`,
    language: language!,
    code: code!,
  }));
});
const inLanguage = (language: string) => blocks.filter((each) => each.language === language);

/** Commands of the guides that are not ours: how they are called is not looked at. */
const others = ["mkdir", "cp", "unzip", "nats-server", "podman", "kubectl"];

/** The commands of a block, as bash splits them into words. None of them is run. */
function recorded(code: string): string[][] {
  const record = `printf '%s\\0' "\${FUNCNAME[0]}" "$@"; printf '\\n'`;
  const names = ["patchwise", "npx", "npm", "curl", "mpirun", ...others];
  const functions = names.map((name) => `${name}() { ${record}; }`).join("\n");
  // Without a path nothing else is found, and so nothing is run.
  // Bash reads its start files where it takes its standard input for a remote shell's.
  const args = ["--norc", "-euc", `PATH=\n${functions}\n${code}`];
  const { stdout, stderr, status } = spawnSync("bash", args, {
    encoding: "utf8",
    cwd: path.join(root, "test/fixtures"),
  });
  expect([stderr, status]).toEqual(["", 0]);
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.split("\0").slice(0, -1));
}

async function parsed(words: readonly string[]): Promise<void> {
  await expect(parsedCommand(words)).resolves.toBeDefined();
}

const described = openApi("test") as {
  paths: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  components: { schemas: { JobRequest: { properties: object } } };
};

/** Checks a request to the server against the description of its interface. */
function requested(words: readonly string[]): void {
  const address = words.find((word) => word.startsWith("http"))!;
  const route = new URL(address).pathname.replace(/\/ID\b/, "/{id}");
  const at = words.indexOf("--json");
  const method = words.includes("-X") ? words[words.indexOf("-X") + 1]! : at < 0 ? "GET" : "POST";
  expect(described.paths[route]).toHaveProperty(method.toLowerCase());
  const body = at < 0 ? "@" : words[at + 1]!;
  // The body is a block of its own.
  if (body.startsWith("@")) return;
  const { properties } = described.components.schemas.JobRequest;
  expect(Object.keys(properties)).toEqual(
    expect.arrayContaining(Object.keys(JSON.parse(body) as object)),
  );
}

/** Checks a command in the way of its program. */
async function checkCommand([program, ...words]: readonly string[]): Promise<void> {
  const at = words.indexOf("patchwise");
  if (program === "patchwise") return parsed(words);
  if ((program === "npx" || program === "mpirun") && at >= 0) return parsed(words.slice(at + 1));
  if (program === "curl") return requested(words);
  const called = `${program} ${words.slice(0, 2).join(" ")}`;
  const known = [
    ...Object.keys(scripts).map((name) => `npm run ${name}`),
    "npx vite",
    ...["test", "install", "init", "rebuild"].map((name) => `npm ${name}`),
    ...others,
  ];
  const isKnown = known.some((each) => called === each || called.startsWith(`${each} `));
  expect([called, isKnown]).toEqual([called, true]);
}

describe("the guides", () => {
  it("say the language of each block", () => {
    const known = ["sh", "usage", "text", "yaml", "json", "jsonl", "ts", "js", "html", "python"];
    expect(blocks.filter(({ language }) => !known.includes(language))).toEqual([]);
    for (const language of known) expect(inLanguage(language)).not.toEqual([]);
  });

  it.each(inLanguage("sh"))("give commands that are parsed: $name", async ({ code }) => {
    const commands = recorded(code);
    expect(commands).not.toEqual([]);
    for (const each of commands) await checkCommand(each);
  });

  it.each(inLanguage("usage"))("list options that there are: $name", async ({ code }) => {
    const [, name, ...words] = code.replaceAll(/[[\]]/g, " ").trim().split(/\s+/);
    const program = await commandLine(name);
    const command = program.commands.find((each) => each.name() === name) as Command;
    for (const [i, word] of words.entries()) {
      if (!word.startsWith("--")) continue;
      const option = command.options.find(({ long }) => long === word);
      const hasValue = words[i + 1] !== undefined && !words[i + 1]!.startsWith("--");
      expect([word, option?.required]).toEqual([word, hasValue]);
    }
  });

  it.each(inLanguage("yaml"))("give configs that are read: $name", ({ name, code }) => {
    const document = parseDocument(code);
    // Parts of a config show some keys only.
    if (!document.has("data")) document.setIn(["data"], { kind: "images", path: "photos" });
    if (!document.has("base") && !document.has("picture")) document.setIn(["picture", "size"], 64);
    if (!document.has("training")) document.setIn(["training", "steps"], 1);
    expect(() => readTrainingConfig(name, String(document))).not.toThrow();
  });

  it("show the sentence on a misspelt key as it is", () => {
    const config = inLanguage("yaml").find(({ code }) => code.startsWith("# garden.yaml"))!.code;
    const sentence = inLanguage("text").find(({ code }) => code.startsWith("patchwise: "))!.code;
    expect(() => readTrainingConfig("garden.yaml", config.replace("minutes", "minuts"))).toThrow(
      sentence.replace("patchwise: ", "").trim(),
    );
  });

  const isTraining = ({ code }: { code: string }) => code.includes('"kind": "train"');
  const ofJson = inLanguage("json");
  it.each(ofJson.filter((each) => !isTraining(each)))(
    "give prompts that are taken: $name",
    ({ name, code }) => {
      const value: unknown = JSON.parse(code);
      expect(readPrompts(JSON.stringify(value), name)).toEqual([value]);
    },
  );

  it.each(inLanguage("jsonl"))("give lines that are drawn: $name", ({ code }) => {
    expect(promptLines(code, "prompts.jsonl", {})).toHaveLength(code.trim().split("\n").length);
  });

  it.each(ofJson.filter(isTraining))("give trainings that are taken: $name", async ({ code }) => {
    const value = JSON.parse(code) as Record<string, unknown>;
    const black = await toPng({ width: 8, height: 8, channels: 3, pixels: new Uint8Array(192) });
    const image = Buffer.from(black).toString("base64");
    const pictures = (value["pictures"] as object[]).map((each) => ({ ...each, image }));
    await expect(trainingDraftOf({ ...value, pictures })).resolves.toMatchObject({ kind: "train" });
  });
});
