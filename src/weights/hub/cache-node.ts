/**
 * The cache of the Hugging Face Hub in the layout of Python's huggingface_hub, shared by all clients:
 * `models--owner--name/` with `blobs/` (files named by their hash), `snapshots/<commit>/` (links to them
 * under their own names), `refs/` (the commit of each branch) and `trees/` (the files of each commit, by
 * which a snapshot is known to be complete without a request; in Python since version 1.29).
 */
import { tryJson } from "../../engine/bytes.ts";
import { link, readFile, readdir, rename, rm, stat, symlink } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative, sep } from "node:path";
import type { ListFileEntry } from "@huggingface/hub";
import * as z from "zod";
import { PatchwiseError, quote, UsageError } from "../../engine/errors.ts";
import { writeFileAtomic } from "../sources/atomic-node.ts";
import { type HubId, isPlainPath } from "./id.ts";
import { describeSystemError, makeFolders } from "../sources/system-error-node.ts";

/** Settings from the environment variables that all clients of the Hub honour. */
export interface HubSettings {
  readonly cache: string;
  /** Without a trailing slash. */
  readonly endpoint: string;
  readonly token: string | undefined;
  /** True if network access is forbidden. */
  readonly offline: boolean;
}

/**
 * Reads HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.
 *
 * @throws UsageError if HF_ENDPOINT is no URL, or the token has invalid characters
 */
export async function hubSettings(): Promise<HubSettings> {
  const { env } = process;
  const caches = env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  const home = expand(env["HF_HOME"] || join(caches, "huggingface"));
  const cache = env["HF_HUB_CACHE"] || env["HUGGINGFACE_HUB_CACHE"] || join(home, "hub");
  const tokenFile = expand(env["HF_TOKEN_PATH"] || join(home, "token"));
  const token = env["HF_TOKEN"] ?? (await readFile(tokenFile, "utf8").catch(() => ""));
  return {
    cache: expand(cache),
    endpoint: endpointOf(env["HF_ENDPOINT"] || "https://huggingface.co"),
    token: tokenOf(token.trim()),
    offline: /^(1|on|yes|true)$/i.test(env["HF_HUB_OFFLINE"] ?? ""),
  };
}

function expand(path: string): string {
  return path.replace(/^~(?=[/\\]|$)/, () => homedir());
}

function endpointOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const plain = url && `${url.username}${url.password}${url.search}${url.hash}` === "";
  if (plain && /^https?:$/.test(url.protocol)) return text.replace(/\/+$/, "");
  // The message does not quote it, because it may hold a password.
  throw new UsageError(
    "HF_ENDPOINT is not a plain URL; set it to one such as https://huggingface.co, without a user name, a password or a query.",
  );
}

function tokenOf(text: string): string | undefined {
  if (text === "") return undefined;
  if (/^[\x21-\x7e]+$/.test(text)) return text;
  // fetch would reject it with a message that quotes it.
  throw new UsageError(
    "HF_TOKEN, or the token file, has characters that are not allowed in a token; copy the token again.",
  );
}

const sizeSchema = z.int().min(0);
const sha1Schema = z.string().regex(/^[0-9a-f]{40}$/);
const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);

const fileSchema = z.object({
  path: z.string().refine(isPlainPath),
  size: sizeSchema,
  /** SHA-256 of the content for large files and Git's SHA-1 for others; it names the blob. */
  oid: z.union([sha1Schema, sha256Schema]),
  /** Git's SHA-1 of the file in the repository, or of the pointer to a large file. */
  gitOid: sha1Schema,
  /** Identifies the chunks of a large file, for Python. */
  xetHash: sha256Schema.optional(),
});

/** A file of a commit. */
export type HubFile = z.infer<typeof fileSchema>;

export type Held = Pick<HubFile, "path" | "size">;

const filesSchema = z.array(fileSchema);

/** The format in which Python writes trees. */
const treeSchema = z.object({
  format_version: z.literal(1),
  files: z.record(
    z.string(),
    z.object({
      size: sizeSchema,
      blob_id: sha1Schema,
      lfs_sha256: sha256Schema.optional(),
      lfs_size: sizeSchema.optional(),
      xet_hash: sha256Schema.optional(),
    }),
  ),
});

function treeOf(files: readonly HubFile[]): z.infer<typeof treeSchema> {
  const entries = files.map(({ path, size, oid, gitOid, xetHash }) => {
    const lfs = oid === gitOid ? {} : { lfs_sha256: oid, lfs_size: size };
    return [path, { size, blob_id: gitOid, ...lfs, xet_hash: xetHash }] as const;
  });
  return { format_version: 1, files: Object.fromEntries(entries) };
}

/** Returns undefined for an invalid tree, so that the Hub is asked again. */
function filesOf(tree: unknown): readonly HubFile[] | undefined {
  const { data } = treeSchema.safeParse(tree);
  if (!data) return undefined;
  const entries = Object.entries(data.files);
  const files = entries.map(([path, { size, blob_id, lfs_sha256, lfs_size, xet_hash }]) => ({
    path,
    size: lfs_size ?? size,
    oid: lfs_sha256 ?? blob_id,
    gitOid: blob_id,
    xetHash: xet_hash,
  }));
  return filesSchema.safeParse(files).data;
}

/**
 * Validates the Hub's listing of a commit, whose names become paths.
 *
 * @throws PatchwiseError if an entry is invalid
 */
export function checkListing(
  commit: unknown,
  entries: readonly (Partial<ListFileEntry> | null)[],
  server: string,
): Listing {
  const files = entries
    .filter((entry) => entry?.type === "file")
    .map((entry) => {
      const { path, size, oid, lfs, xetHash } = entry ?? {};
      return { path, size: lfs?.size ?? size, oid: lfs?.oid ?? oid, gitOid: oid, xetHash };
    });
  const checked = z.object({ commit: sha1Schema, files: filesSchema }).safeParse({ commit, files });
  if (checked.success) return checked.data;
  const { path, message } = checked.error.issues[0]!;
  const [, index, field = "commit"] = path;
  const name = typeof index === "number" ? files[index]?.path : commit;
  throw new PatchwiseError(
    `${server} lists ${quote(String(name))}, which is not a valid entry (${String(field)}: ${message}); use another HF_ENDPOINT.`,
  );
}

export interface Listing {
  readonly commit: string;
  readonly files: readonly HubFile[];
}

export interface CachedCommit {
  readonly commit: string;
  /** Undefined if the client that made the snapshot keeps no list. */
  readonly files: readonly HubFile[] | undefined;
}

/** The part of the cache that holds one repository. */
export interface RepoCache {
  readonly folder: string;
  snapshot(commit: string): string;
  blob(file: HubFile): string;
  /** The cached commit of the revision, if there is one. */
  find(): Promise<CachedCommit | undefined>;
  /** The files of a snapshot, whichever client made it. */
  held(commit: string): Promise<Held[]>;
  has(commit: string, file: Held): Promise<boolean>;
  /** Links a blob into a snapshot. */
  place(commit: string, file: HubFile): Promise<void>;
  /** Stores the commit of the revision and the files of the commit. */
  note(listing: Listing): Promise<void>;
}

export function repoCache(cache: string, { repo, revision }: HubId): RepoCache {
  const folder = join(cache, `models--${repo.replace("/", "--")}`);
  const reference = join(folder, "refs", ...revision.split("/"));
  const snapshot = (commit: string) => join(folder, "snapshots", commit);
  const tree = (commit: string) => join(folder, "trees", `${commit}.json`);
  const blob = ({ oid }: HubFile) => join(folder, "blobs", oid);
  const isCommit = sha1Schema.safeParse(revision).success;

  return {
    folder,
    snapshot,
    blob,
    find: async () => {
      const noted = isCommit ? revision : await readFile(reference, "utf8").catch(() => "");
      const commit = sha1Schema.safeParse(noted.trim());
      if (!commit.success || !(await stat(snapshot(commit.data)).catch(() => undefined))) {
        return undefined;
      }
      const text = await readFile(tree(commit.data), "utf8").catch(() => "");
      return { commit: commit.data, files: filesOf(tryJson(text)) };
    },
    held: async (commit) => {
      const found: Held[] = [];
      for (const path of await readdir(snapshot(commit), { recursive: true })) {
        const status = await stat(join(snapshot(commit), path)).catch(() => undefined);
        if (status?.isFile()) found.push({ path: path.split(sep).join("/"), size: status.size });
      }
      return found;
    },
    has: async (commit, { path, size }) =>
      (await sizeOfFile(join(snapshot(commit), path))) === size,
    place: (commit, file) =>
      refusing(folder, () => pointTo(blob(file), join(snapshot(commit), file.path))),
    note: async ({ commit, files }) => {
      // Python reports a cache as corrupt if a reference points to no snapshot.
      await refusing(folder, async () => {
        for (const path of [snapshot(commit), dirname(tree(commit)), dirname(reference)]) {
          await makeFolders(path);
        }
      });
      await writeFileAtomic(tree(commit), Buffer.from(JSON.stringify(treeOf(files), null, 1)));
      if (!isCommit) await writeFileAtomic(reference, Buffer.from(commit));
    },
  };
}

/** The size of a file in bytes; undefined if it does not exist, or is a broken link. */
export async function sizeOfFile(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.size;
}

/** @throws PatchwiseError in place of the system's own errors */
export async function refusing<T>(folder: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
    throw new PatchwiseError(
      `Cannot write to the cache ${folder}: ${describeSystemError(error)}; HF_HUB_CACHE can name another folder.`,
      { cause: error },
    );
  }
}

async function pointTo(blob: string, pointer: string): Promise<void> {
  await makeFolders(dirname(pointer));
  // The link is made aside and renamed, so that other processes always find the name, and relative, so that
  // the cache can be moved.
  const aside = `${pointer}.${process.pid}.tmp`;
  await rm(aside, { force: true });
  await symlink(relative(dirname(pointer), blob), aside).catch((error: unknown) => {
    // Windows restricts symbolic links; Python then copies files, too.
    if ((error as NodeJS.ErrnoException).code === "EPERM") return link(blob, aside);
    throw error;
  });
  await rename(aside, pointer);
}
