import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { spawnSync } from "node:child_process";
import { createServer, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { hostname, tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FormatError, PatchwiseError, UsageError } from "../../src/engine/errors.ts";
import { checkListing } from "../../src/weights/hub/cache-node.ts";
import { type HubId, isPlainPath, parseHubId } from "../../src/weights/hub/id.ts";
import { type HubOptions, type HubProgress, hubSnapshot } from "../../src/weights/hub/hub-node.ts";
import { gitOid, type HubServer, hubServer, sha256 } from "../support/hub-server.ts";

const id: HubId = { repo: "owner/tiny", revision: "main" };
const first = "1".repeat(40);
const second = "2".repeat(40);
const bytes = (length: number, seed = 7) =>
  Buffer.from(Uint8Array.from({ length }, (_, i) => (i * seed + (i >> 8)) & 0xff));

const config = '{ "hidden": 8 }\n';
const large = bytes(300_000);

let hub: HubServer;
let cache: string;
let home: string;

beforeEach(async () => {
  home = mkdtempSync(path.join(tmpdir(), "patchwise-hub-"));
  cache = path.join(home, "hub");
  hub = await hubServer();
  hub.repositories["owner/tiny"] = {
    commit: first,
    files: {
      "README.md": "words",
      "config.json": config,
      "transformer/model.safetensors": large,
      "transformer/config.json": config,
    },
  };
  for (const name of Object.keys(process.env)) {
    const changesDownloads = /^(HF_|HUGGINGFACE_HUB_CACHE$|(https?|all|no)_proxy$)/i.test(name);
    if (changesDownloads) delete process.env[name];
  }
  process.env["HF_HOME"] = home;
  process.env["HF_ENDPOINT"] = `${hub.endpoint}/`;
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await hub.close();
  rmSync(home, { recursive: true, force: true });
});

const needed = (paths: readonly string[]) => paths.filter((each) => !each.endsWith(".md"));
const snapshot = (options: HubOptions = {}, of: HubId = id) =>
  hubSnapshot(of, async (paths) => needed(paths), { attempts: 1, ...options });
const inCache = (...parts: string[]) => path.join(cache, "models--owner--tiny", ...parts);
const failure = (work: Promise<unknown>) =>
  work.then(
    () => new Error("it worked"),
    (error: Error) => error,
  );
const transfers = () => hub.asked.filter(({ host }) => host === "storage");
const oneSentence = /^[^\n]+\.$/;

describe("a proxy of the environment", () => {
  /** A proxy that leads every host to the server of the test, as one without tunnels does. */
  async function withProxy(work: (address: string, asked: string[]) => Promise<void>) {
    const asked: string[] = [];
    const proxy = createServer((request, response) => {
      asked.push(request.url!);
      const url = request.url!.replace("http://hub.example.invalid", hub.endpoint);
      const { method, headers } = request;
      const onward = httpRequest(url, { method, headers });
      onward.on("response", (answer) => {
        response.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(response);
      });
      request.pipe(onward);
    });
    await new Promise<void>((listening) => proxy.listen(0, "127.0.0.1", listening));
    try {
      await work(`http://127.0.0.1:${(proxy.address() as AddressInfo).port}`, asked);
    } finally {
      vi.unstubAllEnvs();
      proxy.closeAllConnections();
      proxy.close();
    }
  }

  it("is asked in place of the host, but not for hosts of NO_PROXY", async () => {
    await withProxy(async (address, asked) => {
      process.env["HF_ENDPOINT"] = "http://hub.example.invalid";
      vi.stubEnv("HTTP_PROXY", address);
      expect(existsSync(path.join(await snapshot(), "config.json"))).toBe(true);
      expect(asked[0]).toMatch(/^http:\/\/hub\.example\.invalid\/api\/models\/owner\/tiny/);
    });
    rmSync(cache, { recursive: true });
    await withProxy(async (address, asked) => {
      process.env["HF_ENDPOINT"] = hub.endpoint;
      vi.stubEnv("HTTP_PROXY", address);
      vi.stubEnv("NO_PROXY", "127.0.0.1");
      await snapshot();
      expect(asked).toEqual([]);
    });
  });
});

describe("parseHubId", () => {
  it("parses owner/name, @revision and :file", () => {
    expect(parseHubId("owner/name")).toEqual({ repo: "owner/name", revision: "main" });
    expect(parseHubId("a-b/c.d_5@refs/pr/1")).toEqual({ repo: "a-b/c.d_5", revision: "refs/pr/1" });
    expect(parseHubId("owner/name@v1:unet/x.safetensors")).toEqual({
      repo: "owner/name",
      revision: "v1",
      file: "unet/x.safetensors",
    });
  });

  it("refuses paths and other texts", () => {
    const others = [
      "emoji",
      "./a/b",
      "../a/b",
      "/a/b",
      "a/b/c",
      "C:/a/b",
      "runs/model.safetensors",
      "DiT-LX/2",
      "a/b--c",
      "a/..",
      "a/b@../../x",
      "a/b@",
      "a/b:",
      "a/b:../x.safetensors",
      "a/b:/etc/x.safetensors",
      "a/b:c\\..\\x",
      "a b/c",
      "https://huggingface.co/a/b",
    ];
    expect(others.filter((each) => parseHubId(each) !== undefined)).toEqual([]);
  });

  it("refuses paths that leave the folder", () => {
    const part = fc.constantFrom("..", ".", "", "a", "b.json", "\\", "C:", "...", "\0");
    fc.assert(
      fc.property(fc.array(part, { minLength: 1 }), (parts) => {
        const text = parts.join("/");
        if (!isPlainPath(text)) return;
        for (const system of [path.posix, path.win32]) {
          const base = system.resolve("/base") + system.sep;
          expect(system.resolve(base, text).startsWith(base)).toBe(true);
        }
      }),
      { seed: 3, numRuns: 500 },
    );
    expect(isPlainPath("transformer/config.json")).toBe(true);
  });
});

describe("a download", () => {
  it("fills the cache in the layout of Python's huggingface_hub", async () => {
    const folder = await snapshot();
    expect(folder).toBe(inCache("snapshots", first));
    const [git, lfs] = [gitOid(config), sha256(large)];
    // One blob for two equal files; nothing of what was not chosen.
    expect(readdirSync(inCache()).toSorted()).toEqual(["blobs", "refs", "snapshots", "trees"]);
    expect(readdirSync(inCache("blobs")).toSorted()).toEqual([git, lfs].toSorted());
    expect(readFileSync(inCache("refs", "main"), "utf8")).toBe(first);
    expect(readlinkSync(path.join(folder, "config.json"))).toBe(`../../blobs/${git}`);
    expect(readlinkSync(path.join(folder, "transformer/model.safetensors"))).toBe(
      `../../../blobs/${lfs}`,
    );
    expect(existsSync(path.join(folder, "README.md"))).toBe(false);
    expect(sha256(readFileSync(path.join(folder, "transformer/model.safetensors")))).toBe(
      sha256(large),
    );
    expect(lstatSync(inCache("blobs", lfs)).isFile()).toBe(true);
  });

  it("sends no request if all files are cached", async () => {
    const folder = await snapshot();
    hub.asked.length = 0;
    expect(await snapshot()).toBe(folder);
    expect(await snapshot({}, { ...id, revision: first })).toBe(folder);
    expect(hub.asked).toEqual([]);
  });

  it("downloads only the additional files of another selection", async () => {
    const folder = await snapshot();
    hub.asked.length = 0;
    await hubSnapshot(id, async () => ["README.md"]);
    expect(hub.asked.filter(({ path: at }) => at.includes("/resolve/"))).toHaveLength(1);
    expect(readFileSync(path.join(folder, "README.md"), "utf8")).toBe("words");
  });

  it("uses files that Python downloaded", async () => {
    const blob = inCache("blobs", sha256(large));
    const pointer = inCache("snapshots", first, "transformer/model.safetensors");
    for (const each of [blob, pointer, inCache("refs", "main")]) {
      mkdirSync(path.dirname(each), { recursive: true });
    }
    writeFileSync(blob, large);
    writeFileSync(inCache("refs", "main"), first);
    symlinkSync(`../../../blobs/${sha256(large)}`, pointer);
    const of = path.dirname(path.dirname(pointer));
    writeFileSync(path.join(of, "config.json"), config);
    writeFileSync(path.join(of, "transformer/config.json"), config);
    await snapshot();
    expect(hub.asked.filter((each) => !each.path.startsWith("/api/"))).toEqual([]);
  });

  it("writes and reads listings of commits as Python does", async () => {
    await snapshot();
    const entry = (content: string | Buffer) => ({
      size: content.length,
      blob_id: gitOid(content),
      ...(content === large && { lfs_sha256: sha256(large), lfs_size: large.length }),
    });
    const files = {
      "README.md": entry("words"),
      "config.json": entry(config),
      "transformer/config.json": entry(config),
      "transformer/model.safetensors": entry(large),
    };
    const tree = inCache("trees", `${first}.json`);
    expect(JSON.parse(readFileSync(tree, "utf8"))).toEqual({ format_version: 1, files });
    hub.asked.length = 0;
    writeFileSync(tree, JSON.stringify({ format_version: 2, files }));
    await snapshot();
    expect(hub.asked).not.toEqual([]);
  });

  it("reports progress", async () => {
    const told: HubProgress[] = [];
    await snapshot({ onProgress: (progress) => told.push(progress) });
    const total = large.length + 2 * config.length;
    expect(told.every((each) => each.total === total && each.files === 3)).toBe(true);
    expect(told.map(({ done }) => done)).toEqual(
      told.map(({ done }) => done).toSorted((a, b) => a - b),
    );
    expect(told.filter(({ file }) => file.endsWith(".safetensors")).at(-1)?.done).toBe(
      config.length + large.length,
    );
  });

  it("honours HF_HUB_CACHE", async () => {
    process.env["HF_HUB_CACHE"] = path.join(home, "elsewhere");
    expect(await snapshot()).toBe(
      path.join(home, "elsewhere/models--owner--tiny/snapshots", first),
    );
  });

  it("follows a branch only if files are missing, and shares unchanged files", async () => {
    await snapshot();
    const repository = hub.repositories["owner/tiny"]!;
    repository.commit = second;
    repository.files["config.json"] = '{ "hidden": 9 }\n';
    expect(await snapshot()).toBe(inCache("snapshots", first));
    rmSync(inCache("refs"), { recursive: true });
    hub.asked.length = 0;
    expect(await snapshot()).toBe(inCache("snapshots", second));
    expect(transfers()).toEqual([]);
    expect(realpathSync(inCache("snapshots", second, "transformer/model.safetensors"))).toBe(
      realpathSync(inCache("blobs", sha256(large))),
    );
  });

  it("is done once by two concurrent calls", async () => {
    const folders = await Promise.all([snapshot(), snapshot()]);
    expect(folders[0]).toBe(folders[1]);
    expect(transfers()).toHaveLength(1);
    expect(readdirSync(inCache("blobs"))).toHaveLength(2);
  });
});

describe("an interruption", () => {
  const model = "transformer/model.safetensors";
  const partial = () => inCache("blobs", `${sha256(large)}.incomplete`);

  beforeEach(() => {
    hub.cuts.set(model, 100_000);
  });

  it("keeps the partial file, and the next call downloads only the rest", async () => {
    const error = await failure(snapshot());
    expect(error).toBeInstanceOf(PatchwiseError);
    expect(error.message).toMatch(oneSentence);
    expect(error.message).toContain("100000 of 300000 bytes");
    expect(sha256(readFileSync(partial()))).toBe(sha256(large.subarray(0, 100_000)));
    expect(existsSync(inCache("snapshots", first, model))).toBe(false);

    hub.cuts.clear();
    hub.asked.length = 0;
    const told: number[] = [];
    const folder = await snapshot({ onProgress: ({ done }) => told.push(done) });
    expect(transfers().map(({ range }) => range)).toEqual(["bytes=100000-"]);
    expect(told[0]).toBe(config.length + 100_000);
    expect(sha256(readFileSync(path.join(folder, model)))).toBe(sha256(large));
    expect(existsSync(partial())).toBe(false);
  });

  it("is retried within a call as long as data arrives", async () => {
    const folder = await snapshot({ attempts: 2 });
    expect(transfers().map(({ range }) => range)).toEqual([
      undefined,
      "bytes=100000-",
      "bytes=200000-",
    ]);
    expect(sha256(readFileSync(path.join(folder, model)))).toBe(sha256(large));
  });

  it("can be the caller's signal", async () => {
    const stop = new AbortController();
    const reason = new Error("enough");
    const error = await failure(
      snapshot({
        attempts: 5,
        signal: stop.signal,
        onProgress: ({ done }) => done > 100_000 && stop.abort(reason),
      }),
    );
    expect(error).toBe(reason);
    expect(sha256(readFileSync(partial()))).toBe(sha256(large.subarray(0, 100_000)));
  });

  it("restarts if the file has changed", async () => {
    await failure(snapshot());
    const other = bytes(200_000, 11);
    hub.cuts.clear();
    hub.asked.length = 0;
    hub.repositories["owner/tiny"]!.commit = second;
    hub.repositories["owner/tiny"]!.files[model] = other;
    const folder = await snapshot();
    expect(transfers().map(({ range }) => range)).toEqual([undefined]);
    expect(sha256(readFileSync(path.join(folder, model)))).toBe(sha256(other));
  });

  it("restarts if the server does not support ranges", async () => {
    await failure(snapshot());
    hub.cuts.clear();
    hub.wholeOnly = true;
    const folder = await snapshot();
    expect(sha256(readFileSync(path.join(folder, model)))).toBe(sha256(large));
  });

  it("restarts if the partial file is not the beginning of the file", async () => {
    await failure(snapshot());
    hub.cuts.clear();
    hub.asked.length = 0;
    writeFileSync(partial(), bytes(50_000, 3));
    utimesSync(partial(), 0, 0);
    const folder = await snapshot();
    expect(transfers().map(({ range }) => range)).toEqual(["bytes=50000-", undefined]);
    expect(sha256(readFileSync(path.join(folder, model)))).toBe(sha256(large));
  });

  it("of a killed process is taken over, and that of a running one awaited", async () => {
    await failure(snapshot());
    hub.cuts.clear();
    hub.asked.length = 0;
    const { pid } = spawnSync(process.execPath, ["--version"]);
    const blob = inCache("blobs", sha256(large));
    rmSync(partial());
    writeFileSync(`${blob}.${pid}-${hostname()}-0a0a0a.incomplete`, large.subarray(0, 250_000));
    const folder = await snapshot();
    expect(transfers().map(({ range }) => range)).toEqual(["bytes=250000-"]);

    rmSync(path.join(folder, model));
    rmSync(blob);
    const alive = `${blob}.${process.pid}-${hostname()}-0a0a0a.incomplete`;
    writeFileSync(alive, large.subarray(0, 10));
    hub.asked.length = 0;
    const waiting = snapshot({
      onProgress: ({ done }) => {
        // The other process is done.
        if (done === config.length + 10) writeFileSync(blob, large);
      },
    });
    await waiting;
    expect(transfers()).toEqual([]);
    expect(readdirSync(inCache("blobs"))).toContain(path.basename(alive));
  });
});

describe("content that differs from the listing", () => {
  const model = "transformer/model.safetensors";

  it.each([
    ["as long", bytes(300_000, 13)],
    ["too long", bytes(300_001)],
  ])("is refused and removed: %s", async (_, wrong) => {
    hub.swapped.set(model, wrong);
    const error = await failure(snapshot());
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toMatch(oneSentence);
    expect(error.message).toContain(model);
    expect(readdirSync(inCache("blobs"))).toEqual([gitOid(config)]);
    expect(existsSync(inCache("snapshots", first, model))).toBe(false);
  });

  it("never replaces a valid file", async () => {
    await snapshot();
    hub.swapped.set(model, bytes(300_000, 13));
    rmSync(inCache("snapshots", first, model));
    const folder = await snapshot();
    expect(sha256(readFileSync(path.join(folder, model)))).toBe(sha256(large));
  });

  it("is refused before the download if the Hub's headers show it", async () => {
    const error = await failure(
      hubSnapshot(id, async (paths) => {
        hub.repositories["owner/tiny"]!.files[model] = bytes(300_000, 13);
        return needed(paths);
      }),
    );
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toContain("has another hash");
  });

  it.each(["../../x", "/etc/x", "a/../../../x", "a\\..\\x", "C:x", "a//b", ""])(
    "may be a name that leads elsewhere: %s",
    async (name) => {
      hub.listed.push({ type: "file", path: name, size: 1, oid: first });
      const error = await failure(snapshot());
      expect(error).toBeInstanceOf(PatchwiseError);
      expect(error.message).toMatch(/which is not a valid entry/);
      expect(existsSync(cache)).toBe(false);
    },
  );

  it("is refused for any content", () => {
    const answer = fc.array(
      fc.oneof(
        fc.jsonValue(),
        fc.record({ type: fc.constant("file"), path: fc.jsonValue(), lfs: fc.jsonValue() }),
        fc.record({
          type: fc.constant("file"),
          path: fc.string(),
          size: fc.nat(),
          oid: fc.constant(first),
        }),
      ),
    );
    let [taken, refused] = [0, 0];
    fc.assert(
      fc.property(answer, (entries) => {
        try {
          const { files } = checkListing(first, entries as Parameters<typeof checkListing>[1], "x");
          taken++;
          return files.every((file) => isPlainPath(file.path));
        } catch (error) {
          refused++;
          return error instanceof PatchwiseError && oneSentence.test(error.message);
        }
      }),
      { seed: 5, numRuns: 500 },
    );
    expect(Math.min(taken, refused)).toBeGreaterThan(50);
  });

  it("can be a hash that leaves the cache", async () => {
    hub.listed.push({ type: "file", path: "x.json", size: 1, oid: "../../x" });
    expect((await failure(snapshot())).message).toMatch(/not a valid entry/);
  });
});

describe("the Hub's refusals", () => {
  const messageFor = async (of: HubId = id) => {
    const error = await failure(snapshot({}, of));
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).toMatch(oneSentence);
    expect(error.message).not.toContain("hf_");
    return error.message;
  };

  it("404: no such model or revision", async () => {
    process.env["HF_TOKEN"] = hub.token;
    expect(await messageFor({ ...id, repo: "owner/tinny" })).toMatch(
      /There is no model "owner\/tinny".*check the name/,
    );
    expect(await messageFor({ ...id, revision: "v9" })).toMatch(/no revision "v9"/);
  });

  it("401: none, or a private one, without a token", async () => {
    hub.repositories["owner/tiny"]!.hidden = true;
    expect(await messageFor()).toMatch(/private or gated.*HF_TOKEN/);
  });

  it("gated: names the page of the licence and HF_TOKEN", async () => {
    hub.repositories["owner/tiny"]!.gated = true;
    expect(await messageFor()).toContain(
      `licence: do so at ${hub.endpoint}/owner/tiny, and set HF_TOKEN`,
    );
    process.env["HF_TOKEN"] = "hf_other";
    expect(await messageFor()).toContain("with the account of HF_TOKEN");
    process.env["HF_TOKEN"] = hub.token;
    expect(await snapshot()).toBe(inCache("snapshots", first));
  });
});

describe("without a network", () => {
  it("uses cached files, including those of Python", async () => {
    const folder = await snapshot();
    rmSync(inCache("trees"), { recursive: true });
    await hub.close();
    expect(await snapshot()).toBe(folder);
  });

  it("names what is missing, where it was looked for, and how to get it", async () => {
    await hub.close();
    const error = await failure(snapshot());
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).toMatch(oneSentence);
    expect(error.message).toContain(
      `owner/tiny is not a local folder, and the model of this name on the Hub (main) is not in the cache, ${inCache()}`,
    );
    expect(error.message).toContain(`${hub.endpoint} cannot be reached (connect ECONNREFUSED`);
    expect(error.message).toContain("HF_ENDPOINT");
    expect(error.message).toContain("copy that folder");
  });

  it("says that something answers that is no Hub", async () => {
    const page = createServer((_, response) =>
      response.end("<!doctype html><title>Log in</title>"),
    );
    await new Promise<void>((resolve) => page.listen(0, "127.0.0.1", resolve));
    const endpoint = `http://127.0.0.1:${(page.address() as AddressInfo).port}`;
    process.env["HF_ENDPOINT"] = endpoint;
    const error = await failure(snapshot());
    page.close();
    expect(error).toBeInstanceOf(PatchwiseError);
    expect(error.message).toBe(
      `${endpoint} answered with something other than JSON, which begins with "<!doctype html><title>Log in</title>"; check HF_ENDPOINT, and that no proxy answers in its place.`,
    );
  });

  it("names the proxy that may be at fault, and refuses addresses of other kinds", async () => {
    vi.stubEnv("HTTP_PROXY", "127.0.0.1:9");
    const error = await failure(snapshot());
    expect(error.message).toMatch(oneSentence);
    expect(error.message).toContain("check the proxy of HTTP_PROXY");
    vi.stubEnv("HTTP_PROXY", "socks5://127.0.0.1:9");
    expect((await failure(snapshot())).message).toBe(
      'HTTP_PROXY does not hold the address of an HTTP proxy, but one that begins with "socks5:"; set it to one such as http://proxy.example:3128.',
    );
  });

  it("names the files that are missing", async () => {
    hub.cuts.set("transformer/model.safetensors", 10);
    await failure(snapshot());
    await hub.close();
    expect((await failure(snapshot())).message).toContain(
      "transformer/model.safetensors and 1 more of the files of owner/tiny (main) are not in the cache",
    );
  });

  it("sends no request with HF_HUB_OFFLINE", async () => {
    process.env["HF_HUB_OFFLINE"] = "1";
    const error = await failure(snapshot());
    expect(error.message).toContain(`HF_HUB_OFFLINE forbids asking ${hub.endpoint}; unset it`);
    expect(hub.asked).toEqual([]);
  });
});

describe("the token", () => {
  it("is sent only to the endpoint", async () => {
    writeFileSync(path.join(home, "token"), "hf_of_the_file\n");
    await snapshot();
    const shown = (host: string) =>
      new Set(hub.asked.filter((each) => each.host === host).map((each) => each.authorization));
    expect(shown("hub")).toEqual(new Set(["Bearer hf_of_the_file"]));
    expect(shown("storage")).toEqual(new Set([undefined]));
  });

  it("is never printed", async () => {
    process.env["HF_TOKEN"] = "hf_secret\nrest";
    const error = await failure(snapshot());
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).not.toContain("secret");
    delete process.env["HF_TOKEN"];
    process.env["HF_ENDPOINT"] = "https://name:secret@example.org";
    expect((await failure(snapshot())).message).not.toContain("secret");
  });
});

describe("the disk", () => {
  it("must have space for the download", async () => {
    hub.listed.push({
      type: "file",
      path: "huge.json",
      size: Number.MAX_SAFE_INTEGER,
      oid: first,
    });
    const error = await failure(snapshot());
    expect(error.message).toMatch(/needs 9007199\.3 GB more.*HF_HUB_CACHE/);
    expect(transfers()).toEqual([]);
  });

  it("can refuse writes", async () => {
    writeFileSync(cache, "a file where the cache should be");
    const error = await failure(snapshot());
    expect(error).toBeInstanceOf(PatchwiseError);
    expect(error.message).toMatch(/Cannot write to the cache .*HF_HUB_CACHE/);
  });
});
