/** A model folder behind a URL, on any file server. */
import { PatchwiseError } from "../../engine/errors.ts";
import type { ModelFolder } from "./folder.ts";
import { openGGUF } from "../gguf/gguf.ts";
import { openSafetensors } from "../safetensors/safetensors.ts";
import { openSharded } from "../safetensors/sharded.ts";
import { type ByteSource, bytesSource } from "./source.ts";
import { sendRequest, type UrlOptions, urlSource, withoutSecrets } from "./url.ts";

/** Larger weights may not fit into one buffer, so their tensors are requested one by one. */
const WHOLE_BYTES = 2 ** 28;

/**
 * Opens a folder by its URL.
 *
 * @param address with or without a trailing slash; its query is added to each file, as it may hold a
 *   signature
 * @param wholeBytes weights up to this size are downloaded by one request
 */
export function urlFolder(
  address: string | URL,
  options: UrlOptions = {},
  wholeBytes = WHOLE_BYTES,
): ModelFolder {
  const base = new URL(address, globalThis.location?.href);
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  const name = withoutSecrets(base);
  const urlOf = (file: string): URL => {
    const url = new URL(base);
    url.pathname += file.split("/").map(encodeURIComponent).join("/");
    return url;
  };
  const get = async (file: string, method = "GET"): Promise<Response> => {
    const response = await sendRequest(`${name}${file}`, urlOf(file), options, {}, method);
    if (response.ok && !isPage(response)) return response;
    if (method === "HEAD" && (response.ok || response.status === 404)) return response;
    await response.body?.cancel();
    const answer = response.ok ? "it answers with a web page" : `HTTP ${response.status}`;
    throw new PatchwiseError(
      `${name} does not serve ${file} (${answer}); use the URL of a complete and readable model folder.`,
    );
  };
  const read = async (file: string) => {
    const response = observed(file, await get(file), options.onProgress);
    return new Uint8Array(await response.arrayBuffer());
  };
  const source = async (file: string): Promise<ByteSource> => {
    const size = Number((await get(file, "HEAD")).headers.get("content-length") ?? 0);
    if (size > wholeBytes) return urlSource(urlOf(file), options);
    return bytesSource(await read(file), urlOf(file).pathname);
  };
  return {
    name,
    basename: decodeURIComponent(base.pathname.split("/").at(-2) ?? ""),
    pathOf: (file) => `${name}${file}`,
    has: async (file) => {
      const response = await get(file, "HEAD");
      return response.ok && !isPage(response);
    },
    read,
    async weights(file) {
      if (file.toLowerCase().endsWith(".gguf")) return openGGUF(await source(file));
      if (!file.endsWith(".json")) return openSafetensors(await source(file));
      return openSharded(bytesSource(await read(file), urlOf(file).pathname), source);
    },
    folder: (inside) => urlFolder(urlOf(`${inside}/`), options, wholeBytes),
  };
}

/** A response that tells how much of its body has arrived. */
function observed(
  file: string,
  response: Response,
  onProgress: UrlOptions["onProgress"],
): Response {
  if (!onProgress || !response.body) return response;
  const { headers } = response;
  // The length of a compressed body is not that of the file.
  const size = headers.has("content-encoding") ? null : headers.get("content-length");
  const total = size === null ? undefined : Number(size);
  let loaded = 0;
  const counter = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      loaded += chunk.length;
      onProgress({ file, loaded, total });
      controller.enqueue(chunk);
    },
  });
  return new Response(response.body.pipeThrough(counter));
}

/** Servers of single-page apps answer every address that they do not know with the app's page, and status 200. */
function isPage({ headers }: Response): boolean {
  return /^text\/html\b/i.test(headers.get("content-type") ?? "");
}
