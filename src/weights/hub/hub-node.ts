/** A model of the Hugging Face Hub as a folder of this machine. */
import { statfs } from "node:fs/promises";
import { join } from "node:path";
import type { ListFileEntry } from "@huggingface/hub";
import { FormatError, PatchwiseError, UsageError } from "../../engine/errors.ts";
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
import type { HubId } from "./id.ts";
import { reasonOf } from "../sources/url.ts";

export interface HubProgress {
  /** Path of the file that is on its way. */
  readonly file: string;
  /** Bytes of all needed files: those that are here, and all. */
  readonly done: number;
  readonly total: number;
  /** Number of needed files. */
  readonly files: number;
}

export interface HubOptions {
  /** Called at each piece that arrives. */
  readonly onProgress?: (progress: HubProgress) => void;
  readonly signal?: AbortSignal;
  /** Connections in a row without a new byte before a download is given up; 5 unless given. */
  readonly attempts?: number;
}

/**
 * Picks the files that are needed.
 *
 * @param paths of all files of the repository
 * @param locate where one of them is on this machine; undefined where it is not here and cannot be fetched
 * @returns undefined where a file is missing that the choice depends on
 */
export type HubChoice = (
  paths: readonly string[],
  locate: (path: string) => Promise<string | undefined>,
) => Promise<readonly string[] | undefined>;

/** What an answer of the Hub's API takes at most, and how many it gives: a thousand files each. */
const MAX_TEXT_BYTES = 2 ** 25;
const MAX_ANSWERS = 100;

const API_TIMEOUT = 30_000;

/**
 * The folder of a snapshot that holds all chosen files, in the cache that Python's huggingface_hub uses too. What is
 * missing is downloaded. Where nothing is, no one is asked, so a branch stays at the commit it was at when it came: give
 * the commit as revision to have another.
 *
 * Obeys HF_HUB_CACHE, HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.
 *
 * @throws UsageError when there is no such model, its licence is not accepted, or it is not here and the Hub cannot be
 *   reached; FormatError when a file is not what was listed; PatchwiseError when the connection or the disk fails, after
 *   which the next call goes on from there; the signal's reason
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
        // What this commit does not have, the branch may have by now.
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
  // At once where the cache knows nothing, so that it can tell later what is missing; else what it knows is better kept
  // until the new is whole.
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

/** Which of the needed files a snapshot lacks. */
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

/** Which commit the revision is at, and what that holds. */
async function askHub({ settings, id, send, options }: Connection): Promise<Listing> {
  // Loaded only where it is needed: it is large.
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
    return new Response(new Blob(pieces), {
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
        `${path} of ${id.repo} takes ${file.size} bytes, but what says which files a model has takes ${MAX_TEXT_BYTES} at most.`,
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

/** @throws PatchwiseError when the disk cannot take what is to come */
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

/** @throws UsageError that tells what is missing, unless nothing is */
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
      ? `${repo} is no folder here, and the model of this name on the Hub (${revision}) is not`
      : `${first}${others.length > 0 ? ` and ${others.length} more of the files` : ""} of ${repo} (${revision}) ${others.length > 0 ? "are" : "is"} not`;
  throw new UsageError(
    `${what} in the cache, ${cache.folder}, and ${offline ? `HF_HUB_OFFLINE forbids to ask ${endpoint}; unset it` : `${endpoint} cannot be reached (${reason}); connect, set HF_ENDPOINT to a mirror`}, or copy that folder from a machine that has it.`,
  );
}
