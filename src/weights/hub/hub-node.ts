/** Downloads models of the Hugging Face Hub. */
import { statfs } from "node:fs/promises";
import { join } from "node:path";
import type { ListFileEntry } from "@huggingface/hub";
import { tryJson } from "../../engine/bytes.ts";
import { FormatError, PatchwiseError, quote, UsageError } from "../../engine/errors.ts";
import { downloadBlob } from "./blob-node.ts";
import {
  type CachedCommit,
  checkListing,
  type Held,
  type HubFile,
  type HubSettings,
  hubSettings,
  type Listing,
  refusing,
  type RepoCache,
  repoCache,
  sizeOfFile,
} from "./cache-node.ts";
import { type HubSend, hubSender } from "./http-node.ts";
import { proxyVariable } from "./proxy-node.ts";
import type { HubId } from "./id.ts";
import { reasonOf } from "../sources/url.ts";

export interface HubProgress {
  /** Path of the file that is being downloaded. */
  readonly file: string;
  /** Bytes of all required files: already present, and in total. */
  readonly done: number;
  readonly total: number;
  /** Number of required files. */
  readonly files: number;
}

export interface HubOptions {
  /** Called for each chunk that arrives. */
  readonly onProgress?: (progress: HubProgress) => void;
  /** Ends the download; what has arrived is kept, and a later call goes on from there. */
  readonly signal?: AbortSignal;
  /** Consecutive connections without new data before a download fails; 5 by default. */
  readonly attempts?: number;
}

/**
 * Selects the files to download.
 *
 * @param paths of all files of the repository
 * @param locate returns the local path of a file; undefined if it is not cached and cannot be downloaded
 * @returns undefined if a file is missing on which the selection depends
 */
export type HubChoice = (
  paths: readonly string[],
  locate: (path: string) => Promise<string | undefined>,
) => Promise<readonly string[] | undefined>;

/** The most bytes of a response of the Hub's API, and the most responses; each lists a thousand files. */
const MAX_TEXT_BYTES = 2 ** 25;
const MAX_ANSWERS = 100;

const API_TIMEOUT = 30_000;

/**
 * Returns the folder of a snapshot that has all chosen files, in the cache that Python's huggingface_hub
 * uses, too. Missing files are downloaded. If none are missing, no request is sent, so a branch stays at the
 * commit at which it was downloaded; pass a commit as the revision to get another one.
 *
 * Honours HF_HUB_CACHE, HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.
 *
 * @throws UsageError if there is no such model, its licence is not accepted, or it is not cached and the Hub
 *   cannot be reached; FormatError if a file differs from the listing; PatchwiseError if the connection or
 *   the disk fails, after which the next call resumes; the signal's reason
 */
export async function hubSnapshot(
  id: HubId,
  choose: HubChoice,
  options: HubOptions = {},
): Promise<string> {
  const settings = await hubSettings();
  const cache = repoCache(settings.cache, id);
  const cached = await cache.find();
  if (cached?.files) {
    const missing = await missingOf(cache, cached.commit, cached.files, choose).catch(
      (error: unknown) => {
        // The branch may have files by now that this commit lacks.
        if (error instanceof UsageError) return undefined;
        throw error;
      },
    );
    if (missing?.length === 0) return cache.snapshot(cached.commit);
  }
  const connection = { settings, id, send: hubSender(settings, id), options };
  let listing: Listing;
  try {
    if (settings.offline) throw new Error("HF_HUB_OFFLINE is set");
    listing = await askHub(connection);
  } catch (error) {
    options.signal?.throwIfAborted();
    if (error instanceof PatchwiseError) throw error;
    return fromCacheAlone(cache, cached, choose, connection, reasonOf(error));
  }
  // If the cache has no listing, this one is stored at once, so that missing files can be named later.
  // Otherwise the old one stays valid until the download is complete.
  if (!cached) await cache.note(listing);
  await download(cache, listing, choose, connection);
  await cache.note(listing);
  return cache.snapshot(listing.commit);
}

interface Connection {
  readonly settings: HubSettings;
  readonly id: HubId;
  readonly send: HubSend;
  readonly options: HubOptions;
}

/** Returns the required files that a snapshot lacks. */
async function missingOf(
  cache: RepoCache,
  commit: string,
  files: readonly Held[],
  choose: HubChoice,
): Promise<string[]> {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const isHere = async (path: string) => {
    const file = byPath.get(path);
    return file !== undefined && (await cache.has(commit, file));
  };
  const missing = new Set<string>();
  const locate = async (path: string) => {
    if (await isHere(path)) return join(cache.snapshot(commit), path);
    missing.add(path);
    return undefined;
  };
  for (const path of (await choose([...byPath.keys()], locate)) ?? []) {
    if (!(await isHere(path))) missing.add(path);
  }
  return [...missing];
}

/** Asks the Hub for the commit of the revision and its files. */
async function askHub({ settings, id, send, options }: Connection): Promise<Listing> {
  // Imported on demand because it is large.
  const { listFiles, modelInfo } = await import("@huggingface/hub");
  const { endpoint: hubUrl } = settings;
  let answers = 0;
  const ask: typeof fetch = async (url) => {
    const signals = [AbortSignal.timeout(API_TIMEOUT), ...(options.signal ? [options.signal] : [])];
    const { response } = await send(new Request(url).url, {}, AbortSignal.any(signals));
    let bytes = 0;
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    for await (const piece of response.body ?? []) {
      pieces.push(piece);
      bytes += piece.length;
      if (bytes > MAX_TEXT_BYTES || answers > MAX_ANSWERS) {
        throw new PatchwiseError(
          `${hubUrl} lists more for ${id.repo} than a model can have; check HF_ENDPOINT.`,
        );
      }
    }
    answers++;
    const body = new Blob(pieces);
    requireJson(hubUrl, await body.text());
    return new Response(body, {
      headers: { link: response.headers.get("link") ?? "" },
    });
  };
  const common = { hubUrl, fetch: ask };
  const info = { name: id.repo, revision: id.revision, additionalFields: ["sha" as const] };
  const { sha } = await modelInfo({ ...common, ...info });
  const entries: ListFileEntry[] = [];
  const tree = { repo: id.repo, revision: sha, recursive: true };
  for await (const entry of listFiles({ ...common, ...tree })) entries.push(entry);
  return checkListing(sha, entries, hubUrl);
}

/** @throws PatchwiseError for answers of something that is no Hub, such as the page of a proxy */
function requireJson(hubUrl: string, text: string): void {
  if (tryJson(text) !== undefined) return;
  const first = quote(text.trim().slice(0, 40));
  throw new PatchwiseError(
    `${hubUrl} answered with something other than JSON, which begins with ${first}; check HF_ENDPOINT, and that no proxy answers in its place.`,
  );
}

async function download(
  cache: RepoCache,
  { commit, files }: Listing,
  choose: HubChoice,
  { settings, id, send, options }: Connection,
): Promise<void> {
  const { signal = new AbortController().signal, onProgress, attempts = 5 } = options;
  const bring = async (file: HubFile, onBytes: (bytes: number) => void) => {
    if (await cache.has(commit, file)) return;
    const blob = cache.blob(file);
    if ((await sizeOfFile(blob)) !== file.size) {
      const path = file.path.split("/").map(encodeURIComponent).join("/");
      const url = `${settings.endpoint}/${id.repo}/resolve/${commit}/${path}`;
      await downloadBlob({ file, url, blob, send, attempts, signal, onBytes });
    }
    await cache.place(commit, file);
  };

  const byPath = new Map(files.map((file) => [file.path, file]));
  const locate = async (path: string) => {
    const file = byPath.get(path);
    if (!file) return undefined;
    if (file.size > MAX_TEXT_BYTES) {
      throw new FormatError(
        `${path} of ${id.repo} takes ${file.size} bytes, but a file that lists others may take at most ${MAX_TEXT_BYTES}.`,
      );
    }
    await bring(file, () => undefined);
    return join(cache.snapshot(commit), path);
  };
  const paths = (await choose([...byPath.keys()], locate)) ?? [];
  const chosen = paths.map((path) => byPath.get(path)).filter((file) => file !== undefined);
  await checkRoom(cache, chosen, id);
  const total = chosen.reduce((sum, { size }) => sum + size, 0);
  let before = 0;
  for (const file of chosen) {
    await bring(file, (bytes) =>
      onProgress?.({ file: file.path, done: before + bytes, total, files: chosen.length }),
    );
    before += file.size;
  }
}

/** @throws PatchwiseError if the disk has too little space */
async function checkRoom(cache: RepoCache, chosen: readonly HubFile[], id: HubId): Promise<void> {
  let needed = 0;
  for (const file of chosen) {
    const [whole, part] = [cache.blob(file), `${cache.blob(file)}.incomplete`];
    if ((await sizeOfFile(whole)) !== file.size)
      needed += file.size - ((await sizeOfFile(part)) ?? 0);
  }
  const { bavail, bsize } = await refusing(cache.folder, () => statfs(cache.folder));
  if (needed <= bavail * bsize) return;
  throw new PatchwiseError(
    `${id.repo} needs ${inGB(needed)} more on the disk of ${cache.folder}, which has ${inGB(bavail * bsize)} left; free some, or set HF_HUB_CACHE to a folder on another disk.`,
  );
}

const inGB = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;

/** @throws UsageError that names the missing files, unless the snapshot is complete */
async function fromCacheAlone(
  cache: RepoCache,
  cached: CachedCommit | undefined,
  choose: HubChoice,
  { settings: { endpoint, offline }, id: { repo, revision } }: Connection,
  reason: string,
): Promise<string> {
  let missing: readonly string[] = [];
  if (cached) {
    const { commit, files = await cache.held(commit) } = cached;
    missing = await missingOf(cache, commit, files, choose);
    if (missing.length === 0) return cache.snapshot(commit);
  }
  const [first, ...others] = missing;
  const what =
    first === undefined
      ? `${repo} is not a local folder, and the model of this name on the Hub (${revision}) is not`
      : `${first}${others.length > 0 ? ` and ${others.length} more of the files` : ""} of ${repo} (${revision}) ${others.length > 0 ? "are" : "is"} not`;
  throw new UsageError(
    `${what} in the cache, ${cache.folder}, and ${offline ? `HF_HUB_OFFLINE forbids asking ${endpoint}; unset it` : `${endpoint} cannot be reached (${reason}); connect, set HF_ENDPOINT to a mirror${proxyHint(endpoint)}`}, or copy that folder from a machine that has it.`,
  );
}

/** What to check where the environment names a proxy. */
function proxyHint(endpoint: string): string {
  const variable = proxyVariable(endpoint);
  return variable === undefined ? "" : `, check the proxy of ${variable}`;
}
