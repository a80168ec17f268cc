/** Opens weights behind a URL, in one file or in shards. */
import { openSafetensors, type Weights } from "./safetensors.ts";
import { openSharded } from "./sharded.ts";
import { type UrlOptions, urlSource } from "../sources/url.ts";

/**
 * Opens a `.safetensors` file, or the shards beside a `.safetensors.index.json`, by range requests.
 *
 * @example const weights = await openSafetensorsUrl(new URL("model.safetensors", location.href));
 * @throws FormatError if the server does not support ranges, or the file is invalid
 */
export async function openSafetensorsUrl(
  url: string | URL,
  options: UrlOptions = {},
): Promise<Weights> {
  const source = await urlSource(url, options);
  const { pathname } = new URL(url, globalThis.location?.href);
  if (!pathname.endsWith(".json")) return openSafetensors(source);
  return openSharded(source, (file) => urlSource(siblingOf(url, file), options));
}

/** The query is kept, because it may hold the signature for the whole folder. */
function siblingOf(url: string | URL, file: string): URL {
  const sibling = new URL(url, globalThis.location?.href);
  sibling.pathname = sibling.pathname.replace(/[^/]*$/, encodeURIComponent(file));
  return sibling;
}
