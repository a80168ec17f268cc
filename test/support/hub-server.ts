/**
 * A server on this machine that answers as the Hugging Face Hub does, as far as downloading a model asks: the API, small
 * files in Git, and large ones by a redirect to a storage server on another port.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Repository {
  commit: string;
  files: Record<string, Buffer | string>;
  /** Whose licence must be accepted: files are given only to holders of the token. */
  gated?: boolean;
  /** What strangers cannot tell from none. */
  hidden?: boolean;
}

export interface Asked {
  readonly host: "hub" | "storage";
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

export interface HubServer {
  readonly endpoint: string;
  readonly repositories: Record<string, Repository>;
  /** Every request, in order. */
  readonly asked: Asked[];
  /** Bytes after which the storage cuts each connection for a file. */
  readonly cuts: Map<string, number>;
  /** What the storage sends in place of a file. */
  readonly swapped: Map<string, Buffer>;
  /** What the tree lists beside the files. */
  readonly listed: object[];
  /** Whether the storage sends whole files where a part is asked for. */
  wholeOnly: boolean;
  /** The token that opens what is gated or hidden. */
  token: string;
  close(): Promise<void>;
}

export const sha256 = (content: Buffer | string) =>
  createHash("sha256").update(content).digest("hex");

export const gitOid = (content: Buffer | string) =>
  createHash("sha1")
    .update(`blob ${Buffer.byteLength(content)}\0`)
    .update(content)
    .digest("hex");

const isLarge = (path: string) => path.endsWith(".safetensors");

const PAGE = 3;

export async function hubServer(): Promise<HubServer> {
  const asked: Asked[] = [];
  const note = (host: "hub" | "storage", { url, headers }: IncomingMessage) => {
    asked.push({ host, path: url!, range: headers.range, authorization: headers.authorization });
  };

  const storage = await listening((request, response) => {
    note("storage", request);
    const [, commit = "", path = ""] = /^\/([0-9a-f]{40})\/(.+)$/.exec(request.url!) ?? [];
    const repository = Object.values(hub.repositories).find((each) => each.commit === commit)!;
    const content = hub.swapped.get(path) ?? Buffer.from(repository.files[path]!);
    send(request, response, content, { whole: hub.wholeOnly, cut: hub.cuts.get(path) });
  });

  const server = await listening((request, response) => {
    note("hub", request);
    const refuse = (status: number, code: string) =>
      response
        .writeHead(status, { "x-error-code": code, "content-type": "application/json" })
        .end(JSON.stringify({ error: code }));
    const url = new URL(request.url!, hub.endpoint);
    const [, api, id = "", verb, revision = "", path = ""] =
      /^(\/api\/models)?\/([^/]+\/[^/]+)\/(revision|tree|resolve)\/([^/?]+)\/?(.*)$/.exec(
        decodeURIComponent(url.pathname),
      ) ?? [];
    const repository = hub.repositories[id];
    const known = request.headers.authorization === `Bearer ${hub.token}`;
    if (!repository || (repository.hidden && !known)) {
      // To strangers the Hub says 401, lest they learn what exists.
      return refuse(known ? 404 : 401, "RepoNotFound");
    }
    if (revision !== "main" && revision !== repository.commit) {
      return refuse(404, "RevisionNotFound");
    }
    if (verb === "revision") {
      return json(response, { _id: "0", id, sha: repository.commit, private: false });
    }
    if (api && verb === "tree") return tree(url, repository, response);
    if (repository.gated && !known) return refuse(401, "GatedRepo");
    const content = repository.files[path];
    if (content === undefined) return refuse(404, "EntryNotFound");
    if (!isLarge(path)) {
      response.setHeader("x-repo-commit", repository.commit);
      return send(request, response, Buffer.from(content), { etag: gitOid(content) });
    }
    response
      .writeHead(302, {
        location: `${originOf(storage)}/${repository.commit}/${path}`,
        "x-repo-commit": repository.commit,
        "x-linked-etag": `"${sha256(content)}"`,
        "x-linked-size": Buffer.byteLength(content),
      })
      .end();
  });

  const tree = (url: URL, { commit, files }: Repository, response: ServerResponse) => {
    const entries = Object.entries(files).map(([path, content]) => {
      const size = Buffer.byteLength(content);
      const lfs = { oid: sha256(content), size, pointerSize: 130 };
      return { type: "file", path, size, oid: gitOid(content), ...(isLarge(path) && { lfs }) };
    });
    const all = [{ type: "directory", path: "folder", size: 0, oid: commit }, ...entries];
    const from = Number(url.searchParams.get("cursor") ?? 0);
    if (from + PAGE < all.length + hub.listed.length) {
      url.searchParams.set("cursor", String(from + PAGE));
      response.setHeader("link", `<${url.href}>; rel="next"`);
    }
    json(response, [...all, ...hub.listed].slice(from, from + PAGE));
  };

  const hub: HubServer = {
    endpoint: originOf(server),
    repositories: {},
    asked,
    cuts: new Map(),
    swapped: new Map(),
    listed: [],
    wholeOnly: false,
    token: "hf_opens",
    close: async () => {
      await Promise.all(
        [server, storage].map((each) => {
          each.closeAllConnections();
          return new Promise((resolve) => each.close(resolve));
        }),
      );
    },
  };
  return hub;
}

async function listening(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<Server> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

const originOf = (server: Server) =>
  `http://127.0.0.1:${(server.address() as AddressInfo).port.toString()}`;

function json(response: ServerResponse, content: unknown): void {
  response.setHeader("content-type", "application/json").end(JSON.stringify(content));
}

interface SendOptions {
  readonly etag?: string;
  readonly whole?: boolean;
  readonly cut?: number | undefined;
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  content: Buffer,
  { etag = "of-the-storage", whole = false, cut }: SendOptions,
): void {
  const from = whole ? 0 : Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
  const partial = request.headers.range !== undefined && !whole;
  const body = content.subarray(from);
  response.writeHead(partial ? 206 : 200, {
    etag: `"${etag}"`,
    "content-length": body.length,
    ...(partial && { "content-range": `bytes ${from}-${content.length - 1}/${content.length}` }),
  });
  if (cut === undefined) response.end(body);
  else response.write(body.subarray(0, cut), () => setTimeout(() => response.destroy(), 20));
}
