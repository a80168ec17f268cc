import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openModel, openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { safetensorsBytes } from "../../src/weights/safetensors/write.ts";
import { randomArray } from "../support/arrays.ts";
import { interrupted, oneSentence } from "../support/cli.ts";
import { type HubServer, hubServer } from "../support/hub-server.ts";
import { writeDiffusersDiT, writeOriginalDiT, writeVAE } from "../support/model-folders.ts";
import { writeTrained } from "../support/trained-folder.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-hub-model-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

beforeAll(async () => {
  await writeDiffusersDiT(at("diffusers"));
  await writeTrained(at("trained"));
  await writeOriginalDiT(at("dit.safetensors"));
  await writeVAE(at("autoencoder"));
});

let hub: HubServer;

beforeEach(async () => {
  hub = await hubServer();
  process.env["HF_HOME"] = mkdtempSync(at("home-"));
  process.env["HF_ENDPOINT"] = hub.endpoint;
  for (const name of ["HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"]) delete process.env[name];
});

afterEach(() => hub.close());

/** Puts the files of a folder on the Hub, and others beside them. */
function publish(repo: string, folder: string, more: Record<string, Buffer | string> = {}): void {
  const files = Object.fromEntries(
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => {
        const file = path.join(parentPath, name);
        return [path.relative(folder, file), readFileSync(file)];
      }),
  );
  hub.repositories[repo] = { commit: "c".repeat(40), files: { ...files, ...more } };
}

/** Paths of the files that were fetched from a repository. */
const fetched = () =>
  hub.asked
    .filter((each) => each.host === "hub" && each.path.includes("/resolve/"))
    .map((each) => each.path.replace(/^.*\/resolve\/\w+\//, ""));

async function draw(source: string) {
  const pipeline = await openPipeline(source);
  try {
    const [picture] = await finished(pipeline.generate({ class: "1", steps: 2 }));
    return { name: pipeline.name, pixels: picture!.pixels };
  } finally {
    await pipeline.dispose();
  }
}

describe("a model of the Hub", () => {
  it("draws the same pixels as the local folder, through links into the cache", async () => {
    publish("owner/dit", at("diffusers"));
    const [here, there] = [await draw(at("diffusers")), await draw("owner/dit")];
    expect(there.pixels).toEqual(here.pixels);
    expect(there.name).toBe("owner/dit");
  });

  it("can be a folder that patchwise train wrote", async () => {
    publish("owner/own", at("trained"), { "checkpoint/state.safetensors": "much" });
    expect((await draw("owner/own")).pixels).toEqual((await draw(at("trained"))).pixels);
    expect(fetched()).toEqual(["model.json", "model.safetensors"]);
  });

  it("can be a single file, or an index with its shards", async () => {
    const whole = readFileSync(at("dit.safetensors"));
    hub.repositories["owner/files"] = {
      commit: "d".repeat(40),
      files: { "a/DiT.safetensors": whole, "a/other.safetensors": "much" },
    };
    const model = await openModel("owner/files:a/DiT.safetensors");
    await model.close();
    expect(model.name).toBe("owner/files:a/DiT.safetensors");
    expect(fetched()).toEqual(["a/DiT.safetensors"]);

    await expect(openModel("owner/files:a/dit.safetensor")).rejects.toThrow(/is not a model file/);
    await expect(openModel("owner/files:a/DIT2.safetensors")).rejects.toThrow(
      'owner/files has no file "a/DIT2.safetensors"; it has a/DiT.safetensors',
    );
    hub.repositories["owner/files"].commit = "f".repeat(40);
    hub.repositories["owner/files"].files["DIT2.safetensors"] = whole;
    await (await openModel("owner/files:DIT2.safetensors")).close();
    delete hub.repositories["owner/files"].files["DIT2.safetensors"];
    await expect(openModel("owner/files")).rejects.toThrow(
      "give one of its files as owner/files:FILE: it has a/DiT.safetensors, a/other.safetensors.",
    );
  });

  it("downloads all shards of an index", async () => {
    const index = {
      weight_map: { x: "m-00001-of-00002.safetensors", y: "m-00002-of-00002.safetensors" },
    };
    hub.repositories["owner/shards"] = {
      commit: "e".repeat(40),
      files: {
        "m.safetensors.index.json": JSON.stringify(index),
        "m-00001-of-00002.safetensors": "no",
        "m-00002-of-00002.safetensors": "weights",
      },
    };
    await expect(openModel("owner/shards:m.safetensors.index.json")).rejects.toThrow(
      /m-0000[12]-of-00002/,
    );
    expect(fetched()).toHaveLength(3);
  });

  it("downloads no pickles, weights of other libraries, variants, or components that options replace", async () => {
    const index = JSON.parse(readFileSync(at("diffusers/model_index.json"), "utf8")) as object;
    publish("owner/much", at("diffusers"), {
      "model_index.json": JSON.stringify({
        ...index,
        _class_name: "StableDiffusion3Pipeline",
        text_encoder_3: ["transformers", "T5EncoderModel"],
        tokenizer_3: ["transformers", "T5TokenizerFast"],
        safety_checker: [null, null],
      }),
      "README.md": "words",
      "whole.safetensors": "much",
      "safety_checker/model.safetensors": "much",
      "transformer/diffusion_pytorch_model.fp16.safetensors": "much",
      "transformer/diffusion_pytorch_model.bin": "much",
      "transformer/model.onnx": "much",
      "transformer/nested/config.json": "{}",
      "text_encoder_3/config.json": "{}",
      "text_encoder_3/model.safetensors": "much",
      "tokenizer_3/spiece.model": "pieces",
      "tokenizer_3/model.fp16.safetensors.index.json": "{}",
      "tokenizer_3/model.fp16-00001-of-00002.safetensors": "half",
      "tokenizer_3/model-00001-of-00002.bf16.safetensors": "brain",
    });
    const options = { without: ["t5"], vae: at("autoencoder") };
    await openModel("owner/much", options).catch(() => undefined);
    expect(fetched().toSorted()).toEqual(
      [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer_3/model-00001-of-00002.bf16.safetensors",
        "tokenizer_3/spiece.model",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
      ].toSorted(),
    );
  });

  it("is refused before the download if its pipeline class is unknown", async () => {
    publish("owner/other", at("diffusers"), {
      "model_index.json":
        '{ "_class_name": "KandinskyPipeline", "transformer": ["diffusers", "K"] }',
    });
    await expect(openModel("owner/other")).rejects.toThrow(/KandinskyPipeline/);
    expect(fetched()).toEqual(["model_index.json"]);
  });
});

describe("the command line", () => {
  const run = (...args: string[]) => interrupted(args, /^\b$/, scratch);

  it("draws with owner/name, shows the download, and works offline afterwards", async () => {
    publish("owner/dit", at("diffusers"));
    const draws = ["generate", "--model", "owner/dit", "--class", "1", "--steps", "2", "--json"];
    const first = await run(...draws, "--out", at("a.png"));
    expect(first.err).toMatch(/owner\/dit: [\d.]+ of [\d.]+ MB in 6 files/);
    expect(JSON.parse(first.out)).toMatchObject({ model: "owner/dit" });
    await hub.close();
    const { code, err } = await run(...draws, "--out", at("b.png"));
    expect({ code, downloaded: err.includes(" MB in ") }).toEqual({ code: 0, downloaded: false });
  });

  it("counts owner/name", async () => {
    publish("owner/dit", at("diffusers"));
    const [there, here] = [
      await run("info", "owner/dit", "--json"),
      await run("info", at("diffusers"), "--json"),
    ];
    expect(there.code).toBe(0);
    expect(JSON.parse(there.out)).toEqual(JSON.parse(here.out));
  });

  it("reports a missing model in one sentence", async () => {
    writeFileSync(at("token"), "");
    const missing = await run("info", "runs/garden");
    expect(missing.code).toBe(2);
    expect(missing.err).toMatch(oneSentence);
    expect(missing.err).toMatch(/neither a folder nor a file has this path/);
    await hub.close();
    const offline = await run("generate", "--model", "runs/garden", "--class", "1");
    expect(offline.code).toBe(2);
    expect(offline.err).toMatch(oneSentence);
    expect(offline.err).toContain("cannot be reached");
  });
});

describe("a LoRA on the Hub", () => {
  const matrix = (rows: number, columns: number) => randomArray(rows, "float32", [rows, columns]);
  const lora = Buffer.from(
    safetensorsBytes([
      ["blocks.0.attn.qkv.lora_A.weight", matrix(2, 32)],
      ["blocks.0.attn.qkv.lora_B.weight", matrix(96, 2)],
    ]),
  );
  const opened = async (file: string) => {
    const model = await openModel(at("trained"), { loras: [{ file }] });
    await model.close();
    return model;
  };

  it("is downloaded by the usual name, by a given one, or as the only one", async () => {
    const commit = "a".repeat(40);
    const other = Buffer.from("other");
    hub.repositories["o/usual"] = {
      commit,
      files: { "pytorch_lora_weights.safetensors": lora, "c.safetensors": other, "x.png": other },
    };
    hub.repositories["o/several"] = {
      commit: "b".repeat(40),
      files: { "a.safetensors": lora, "b.safetensors": other },
    };
    hub.repositories["o/single"] = { commit: "c".repeat(40), files: { "style.safetensors": lora } };
    for (const file of ["o/usual", "o/several:a.safetensors", "o/single"]) {
      const { loras, weights } = await opened(file);
      expect(loras).toEqual([{ file, weight: 1 }]);
      expect(weights("blocks.0.attn.qkv.weight")?.kind).toBe("array");
    }
    expect(fetched().toSorted()).toEqual([
      "a.safetensors",
      "pytorch_lora_weights.safetensors",
      "style.safetensors",
    ]);
    await expect(opened("o/several")).rejects.toThrow(
      "o/several has no file that alone may be the LoRA; give one of its files as o/several:FILE: it has a.safetensors, b.safetensors.",
    );
    await expect(opened("o/single:b.safetensors")).rejects.toThrow('no file "b.safetensors"');
  });
});
