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
   * In place of the global fetch: answers with the kept file if the server still has the same version, or cannot be reached, and keeps what
   * it downloads otherwise. Parts of files, as weights above 256 MiB are read, are never kept.
   */
  readonly fetch: typeof fetch;
  /** The kept files. */
  list(): Promise<readonly CachedFile[]>;
  /** Deletes the kept files whose addresses begin with `address`, all of them unless given; returns how many there were. */
  delete(address?: string | URL): Promise<number>;
}

/**
 * Opens the cache of models of this page's origin.
 *
 * @param name of the cache, "patchwise" by default
 * @example const pipeline = await openPipelineUrl("/models/emoji/", { backend, fetch: modelCache().fetch });
 * @throws DeviceError from every call where there is no Cache API: it exists in secure contexts only, which are https and localhost
 */
export function modelCache(name = "patchwise"): ModelCache {
  const open = (): Promise<Cache> => {
    if (typeof caches !== "undefined") return caches.open(name);
    throw new DeviceError(
      "There is no Cache API here to keep models in: open the page over https or on localhost, or leave the cache out.",
    );
  };
  return {
    fetch: async (given, init) => {
      const request = new Request(given, init);
      const cache = await open();
      if (request.method !== "GET" || request.headers.has("range")) return fetch(request);
      const kept = await cache.match(request);
      if (kept && (await isCurrent(kept, request))) return kept;
      const response = await fetch(request);
      if (response.status === 200) await cache.put(request, response.clone());
      return response;
    },
    async list() {
      const cache = await open();
      const files: CachedFile[] = [];
      for (const { url } of await cache.keys()) {
        const response = await cache.match(url);
        if (response) files.push({ url, bytes: (await response.blob()).size });
      }
      return files;
    },
    async delete(address) {
      const cache = await open();
      const start = address === undefined ? "" : new URL(address, globalThis.location?.href).href;
      const files = (await cache.keys()).filter(({ url }) => url.startsWith(start));
      for (const file of files) await cache.delete(file);
      return files.length;
    },
  };
}

/** Whether the server has the same version of a file, by what it tells of it, or does not answer. */
async function isCurrent(kept: Response, request: Request): Promise<boolean> {
  const now = await fetch(request, { method: "HEAD", cache: "no-cache" }).catch(() => undefined);
  if (!now?.ok) return now === undefined && !request.signal.aborted;
  return ["etag", "last-modified", "content-length"].every(
    (header) => now.headers.get(header) === kept.headers.get(header),
  );
}
