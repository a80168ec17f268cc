/** A file behind a URL, read by HTTP range requests (RFC 9110, section 14), in Node and in the browser. */
import { FormatError, PatchwiseError } from "../../engine/errors.ts";
import { type ByteSource, checkRange } from "./source.ts";

export interface UrlOptions {
  /** Replaces the global fetch, for example to add a cache or a proxy. */
  readonly fetch?: typeof fetch;
  /** Sent with each request, such as an Authorization header for a gated model. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Ends all downloads, by throwing the signal's reason. */
  readonly signal?: AbortSignal;
  /** Called while a file of a folder is downloaded; weights above 256 MiB are read in parts as they are needed, and not told. */
  readonly onProgress?: (progress: DownloadProgress) => void;
}

/** How much of a file has arrived. */
export interface DownloadProgress {
  readonly file: string;
  /** Bytes that have arrived. */
  readonly loaded: number;
  /** Size of the file in bytes; undefined if the server does not tell it. */
  readonly total: number | undefined;
}

/**
 * Opens a file by its URL. One byte is requested, to learn the size and whether the server supports ranges.
 *
 * @throws FormatError if the server refuses the request, ignores Range, or does not report the size
 */
export async function urlSource(url: string | URL, options: UrlOptions = {}): Promise<ByteSource> {
  const name = withoutSecrets(url);
  const request = (headers: Record<string, string>, method = "GET") =>
    sendRequest(name, url, options, headers, method);

  const probe = await request({ Range: "bytes=0-0" });
  // An unread body would keep the connection busy, or download the whole file.
  await probe.body?.cancel();
  const size = isEmptyFile(probe) ? 0 : await sizeOfFile(probe, name, request);
  const etag = probe.headers.get("etag");

  const source: ByteSource = {
    name,
    size,
    read: async (offset, length) => {
      checkRange(source, offset, length);
      if (length === 0) return new Uint8Array(0);
      const last = offset + length - 1;
      const response = await request({ Range: `bytes=${offset}-${last}` });
      try {
        checkPartial(response, name);
        const range = response.headers.get("content-range");
        const now = response.headers.get("etag");
        if ((range && range !== `bytes ${offset}-${last}/${size}`) || now !== etag) {
          throw new FormatError(
            `${name}: asked for bytes ${offset} to ${last} of ${size}, the server answered ${range ?? "without a range"}${now === etag ? "" : " from another version of the file"}; open it again.`,
          );
        }
        return await bodyOf(response, name, offset, length, options.signal);
      } catch (error) {
        // A body that failed or was read to the end cannot be cancelled.
        await response.body?.cancel().catch(() => undefined);
        throw error;
      }
    },
  };
  return source;
}

/** @throws PatchwiseError if there is no response */
export async function sendRequest(
  name: string,
  url: string | URL,
  options: UrlOptions,
  headers: Record<string, string>,
  method: string,
): Promise<Response> {
  const { fetch: fetchRange = fetch, signal } = options;
  try {
    return await fetchRange(url, {
      method,
      // Compression would shift the offsets. fetch itself disables it for requests with a Range.
      headers: { ...options.headers, ...headers },
      ...(signal && { signal }),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new PatchwiseError(
      `${name}: the request failed (${reasonOf(error)}); check the address and the connection.`,
      { cause: error },
    );
  }
}

/** Reads a body of exactly `length` bytes, and stops as soon as it is longer. */
async function bodyOf(
  response: Response,
  name: string,
  offset: number,
  length: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  let got = 0;
  const reader = response.body?.getReader();
  try {
    for (;;) {
      const part = await reader?.read();
      if (!part || part.done) break;
      if (got + part.value.length <= length) bytes.set(part.value, got);
      got += part.value.length;
      if (got > length) break;
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new PatchwiseError(
      `${name}: the connection broke after ${got} of ${length} bytes (${reasonOf(error)}); try again.`,
      { cause: error },
    );
  } finally {
    reader?.releaseLock();
  }
  if (got === length) return bytes;
  throw new FormatError(
    `${name}: asked for ${length} bytes from byte ${offset}, the server sent ${got > length ? "more" : `only ${got}`}; try again.`,
  );
}

function isEmptyFile(probe: Response): boolean {
  return probe.status === 416 && probe.headers.get("content-range") === "bytes */0";
}

async function sizeOfFile(
  probe: Response,
  name: string,
  request: (headers: Record<string, string>, method: string) => Promise<Response>,
): Promise<number> {
  checkPartial(probe, name);
  let text = /^bytes 0-0\/(\d+)$/.exec(probe.headers.get("content-range") ?? "")?.[1];
  // Cross-origin pages see Content-Range only if the server exposes it, but Content-Length always.
  text ??= (await request({}, "HEAD")).headers.get("content-length") ?? undefined;
  const size = Number(text ?? NaN);
  if (Number.isSafeInteger(size)) return size;
  throw new FormatError(
    `${name}: the server does not report the file's size (neither Content-Range nor Content-Length); download the file and open it from disk.`,
  );
}

/** @throws FormatError unless the response holds only the requested range */
function checkPartial(response: Response, name: string): void {
  if (response.status === 206) return;
  throw new FormatError(
    response.ok
      ? `${name}: the server ignores Range (it answered ${response.status}, not 206), so each read would download the whole file; download it once and open it from disk.`
      : `${name}: the server answered ${response.status} ${response.statusText}`.trimEnd() +
          "; check the address and that you may read it.",
  );
}

/** A signed URL has its key in the query, and messages end up in logs. */
export function withoutSecrets(url: string | URL): string {
  return String(url)
    .replace(/[?#].*$/s, "")
    .replace(/\/\/[^/@]*@/, "//");
}

/** Node puts the reason of a failed fetch into `cause`, which has only a code if several addresses were tried. */
export function reasonOf(error: unknown): string {
  const { cause } = error as { cause?: unknown };
  if (!(cause instanceof Error)) return (error as Error).message;
  return cause.message || ((cause as Error & { code?: string }).code ?? cause.name);
}
