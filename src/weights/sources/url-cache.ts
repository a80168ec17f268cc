/** Keeps the files of models in the browser's Cache API, so that a page downloads them once. */
import { DeviceError } from "../../engine/errors.ts";

/** A file that is kept. */
export interface CachedFile {
  readonly url: string;
  /** Size in bytes. */
  readonly bytes: number;
}

export interface ModelCache {
  /**
   * In place of the global fetch: answers with what is kept if the server still has the same version, or cannot be reached, and keeps what
   * it downloads otherwise. Weights above 256 MiB are read, and kept, in parts. Where the browser has no room left, nothing more is kept.
   */
  readonly fetch: typeof fetch;
  /** The kept files, and the bytes that are kept of each. */
  list(): Promise<readonly CachedFile[]>;
  /** Deletes the kept files whose addresses begin with `address`, all of them unless given; returns how many there were. */
  delete(address?: string | URL): Promise<number>;
}

/** Added to the address of a file for a part of it, since a Cache holds one whole response an address. */
const PART = "patchwise-part";

/** The time for which a server's answer about a file's version is good, in ms: parts of a file are read one after the other. */
const CURRENT_FOR = 10_000;

/**
 * Opens the cache of models of this page's origin.
 *
 * @param name of the cache, "patchwise" by default
 * @example const pipeline = await openPipelineUrl("/models/emoji/", { backend, fetch: modelCache().fetch });
 * @throws DeviceError from every call where there is no Cache API: it exists in secure contexts only, which are https and localhost
 */
export function modelCache(name = "patchwise"): ModelCache {
  /** Files that are being stored while their readers get them, by address. */
  const writing = new Map<string, Promise<void>>();
  const versionOf = rememberedVersions();
  const open = async (): Promise<Cache> => {
    if (typeof caches !== "undefined") return caches.open(name);
    throw new DeviceError(
      "There is no Cache API here to keep models in: open the page over https or on localhost, or leave the cache out.",
    );
  };
  const settled = async (): Promise<Cache> => {
    await Promise.all(writing.values());
    return open();
  };
  return {
    fetch: async (given, init) => {
      const request = new Request(given, init);
      const cache = await open();
      if (request.method !== "GET") return fetch(request);
      const key = keyOf(request);
      await writing.get(key);
      const kept = await cache.match(key);
      if (kept && isSame(kept, await versionOf(request))) return answerWith(kept);
      const response = await fetch(request);
      if (response.status === (request.headers.has("range") ? 206 : 200)) {
        const copy = response.clone();
        const { status, headers } = copy;
        const whole = new Response(copy.body, {
          headers: { ...Object.fromEntries(headers), [PART]: String(status) },
        });
        // A file that cannot be kept, for want of space or because its download ends early, is downloaded again.
        const written = cache.put(key, whole).catch(() => undefined);
        writing.set(
          key,
          written.finally(() => writing.delete(key)),
        );
      }
      return response;
    },
    async list() {
      const cache = await settled();
      const files = new Map<string, number>();
      for (const { url } of await cache.keys()) {
        const response = await cache.match(url);
        const size = (await response?.blob())?.size ?? 0;
        const file = fileOf(url);
        files.set(file, (files.get(file) ?? 0) + size);
      }
      return [...files].map(([url, bytes]) => ({ url, bytes }));
    },
    async delete(address) {
      const cache = await settled();
      const start = address === undefined ? "" : new URL(address, globalThis.location?.href).href;
      const kept = (await cache.keys()).filter(({ url }) => url.startsWith(start));
      for (const each of kept) await cache.delete(each);
      return new Set(kept.map(({ url }) => fileOf(url))).size;
    },
  };
}

function keyOf({ url, headers }: Request): string {
  const range = headers.get("range");
  if (range === null) return url;
  const key = new URL(url);
  key.searchParams.set(PART, range);
  return key.href;
}

/** The address of the file that a key of the cache stands for, as a whole or a part of it. */
function fileOf(key: string): string {
  const url = new URL(key);
  if (!url.searchParams.has(PART)) return key;
  url.searchParams.delete(PART);
  return url.href;
}

/** The response as the server gave it: a part has the status 206, which no Cache holds. */
function answerWith(kept: Response): Response {
  const { body, headers } = kept;
  return new Response(body, { headers, status: Number(headers.get(PART) ?? 200) });
}

/** Asks a server for the headers of a file; undefined if it cannot be reached, null if it refuses. */
type VersionOf = (request: Request) => Promise<Headers | null | undefined>;

function rememberedVersions(): VersionOf {
  const asked = new Map<string, { readonly at: number; readonly headers: ReturnType<VersionOf> }>();
  return (request) => {
    const { url, signal } = request;
    const known = asked.get(url);
    if (request.headers.has("range") && known && Date.now() - known.at < CURRENT_FOR) {
      return known.headers;
    }
    const whole = new Request(request, { method: "HEAD", cache: "no-cache" });
    whole.headers.delete("range");
    const headers = fetch(whole).then(
      (now) => (now.ok ? now.headers : null),
      () => (signal.aborted ? null : undefined),
    );
    asked.set(url, { at: Date.now(), headers });
    return headers;
  };
}

/** True if a kept response is of the version that the server tells of, or does not answer. */
function isSame(kept: Response, now: Headers | null | undefined): boolean {
  if (!now) return now === undefined;
  const size = /\/(\d+)$/.exec(kept.headers.get("content-range") ?? "")?.[1];
  const before = (header: string) =>
    header === "content-length" ? (size ?? kept.headers.get(header)) : kept.headers.get(header);
  return ["etag", "last-modified", "content-length"].every(
    (header) => now.get(header) === before(header),
  );
}
