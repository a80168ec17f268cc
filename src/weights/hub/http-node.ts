/** Requests to the Hugging Face Hub: authorization, redirects and errors. */
import { PatchwiseError, quote, UsageError } from "../../engine/errors.ts";
import type { HubSettings } from "./cache-node.ts";
import type { HubId } from "./id.ts";
import { proxiedFetch } from "./proxy-node.ts";

/** The longest chain is Hub → renamed repository → storage → mirror. */
const MAX_REDIRECTS = 6;

export interface HubAnswer {
  readonly response: Response;
  /** SHA-256 of a large file, which the Hub sends before it redirects to the storage host. */
  readonly linkedEtag: string | undefined;
}

export type HubSend = (
  url: string,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
) => Promise<HubAnswer>;

/**
 * Creates a function that requests a URL, follows redirects, and sends the token to the endpoint only. It
 * throws a UsageError or PatchwiseError if the Hub refuses the request for good. Any other error is
 * temporary.
 */
export function hubSender(settings: HubSettings, id: HubId): HubSend {
  const own = new URL(settings.endpoint).origin;
  const send = proxiedFetch();
  return async (url, headers, signal) => {
    let at = new URL(url);
    let linkedEtag: string | undefined;
    for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
      const known = at.origin === own;
      const authorization = known && settings.token && `Bearer ${settings.token}`;
      const response = await send(at, {
        headers: { ...headers, ...(authorization && { authorization }) },
        // Automatic redirects would hide the headers of the responses in between.
        redirect: "manual",
        signal,
      });
      if (known) linkedEtag ??= response.headers.get("x-linked-etag")?.replace(/^W\/|"/g, "");
      const location = response.headers.get("location");
      if (response.ok) return { response, linkedEtag };
      // An unread body would keep the connection busy.
      await response.body?.cancel();
      if (response.status < 300 || response.status > 399 || location === null) {
        if (known) checkRefusal(response, settings, id);
        // A proxy may leave the text out.
        const words = [at.host, "answered", response.status, response.statusText];
        throw new Error(words.filter(Boolean).join(" "));
      }
      at = new URL(location, at);
    }
    throw new Error(`${new URL(url).host} redirects in circles`);
  };
}

/** Throws an error that explains the refusal, unless it is temporary. */
function checkRefusal(
  { status, headers }: Response,
  { endpoint, token }: HubSettings,
  { repo, revision, file }: HubId,
): void {
  const code = headers.get("x-error-code");
  const page = `${endpoint}/${repo}`;
  const tokens = `${endpoint}/settings/tokens`;
  if (code === "GatedRepo") {
    throw new UsageError(
      `${repo} requires accepting its licence: do so at ${page}, ${token === undefined ? `and set HF_TOKEN to a token of your account (${tokens})` : "with the account of HF_TOKEN, and check that the token may read gated models"}.`,
    );
  }
  if (code === "RevisionNotFound") {
    throw new UsageError(
      `${repo} has no revision ${quote(revision)}; ${page}/tree/main shows its branches and tags.`,
    );
  }
  // Without a token, the Hub does not distinguish private models from missing ones.
  if (status === 404 || (status === 401 && (code === "RepoNotFound" || token === undefined))) {
    throw new UsageError(
      `There is no model ${quote(repo)}${file === undefined ? "" : ` with the file ${quote(file)}`}: neither a folder nor a file has this path, and ${endpoint} has none of this name${status === 404 ? "; check the name" : ` for everyone; check the name, or if the model is private or gated, see ${page} and set HF_TOKEN`}.`,
    );
  }
  if (status === 401 || status === 403) {
    throw new UsageError(
      `${endpoint} does not give ${repo} with this HF_TOKEN; see ${page} for its licence, and ${tokens} for what the token may read.`,
    );
  }
  if (status === 429) {
    throw new PatchwiseError(
      `${endpoint} received too many requests; try again in a few minutes${token === undefined ? ", or set HF_TOKEN, which allows more" : ""}.`,
    );
  }
  if (status < 500) {
    throw new PatchwiseError(
      `${endpoint} answered ${status} when asked for ${repo}; check HF_ENDPOINT.`,
    );
  }
}
