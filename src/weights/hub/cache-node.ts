/**
 * The cache that all clients of the Hugging Face Hub share, as Python's huggingface_hub lays it out:
 * `models--owner--name/` with `blobs/` (files, named by the hash of their content), `snapshots/<commit>/` (links to
 * them under their own names), `refs/` (which commit a branch was at) and `trees/` (what each commit holds, from which a
 * snapshot is known to be complete without asking anyone; Python has it since version 1.29).
 */
import { link, mkdir, readFile, readdir, rename, rm, stat, symlink } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative, sep } from "node:path";
import type { ListFileEntry } from "@huggingface/hub";
import { z } from "zod";
import { PatchwiseError, UsageError } from "../../engine/errors.ts";
import { writeFileAtomic } from "../sources/atomic-node.ts";
import { type HubId, isPlainPath } from "./id.ts";
import { quote } from "../../engine/messages.ts";
import { describeSystemError } from "../sources/system-error-node.ts";

/** Where models come from and go to, by the environment variables that all clients obey. */
export interface HubSettings {
  readonly cache: string;
  /** Without a slash at its end. */
  readonly endpoint: string;
  readonly token: string | undefined;
  /** Whether the network must not be used. */
  readonly offline: boolean;
}

/** @throws UsageError when HF_ENDPOINT is no address, or the token cannot be one */
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
  // A password in it stays out of the message.
  throw new UsageError(
    "HF_ENDPOINT is no plain web address; give one such as https://huggingface.co, without a user name, a password or a query.",
  );
}

function tokenOf(text: string): string | undefined {
  if (text === "") return undefined;
  if (/^[\x21-\x7e]+$/.test(text)) return text;
  // fetch would refuse it with a message that quotes it.
  throw new UsageError(
    "HF_TOKEN, or the token file, holds characters that no token has; copy the token again.",
  );
}

const sizeSchema = z.int().min(0);
const sha1Schema = z.string().regex(/^[0-9a-f]{40}$/);
const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);

const fileSchema = z.object({
  path: z.string().refine(isPlainPath),
  size: sizeSchema,
  /** SHA-256 of the content for large files, Git's SHA-1 for others: the name of the blob. */
  oid: z.union([sha1Schema, sha256Schema]),
  /** Git's SHA-1 of what the repository holds: the file, or a pointer to a large one. */
  gitOid: sha1Schema,
  /** By which Python finds the pieces of a large file. */
  xetHash: sha256Schema.optional(),
});

/** A file of a commit. */
export type HubFile = z.infer<typeof fileSchema>;

export type Held = Pick<HubFile, "path" | "size">;

const filesSchema = z.array(fileSchema);

/** As Python writes a tree. */
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

/** Undefined where it is not one, or not to be trusted: the Hub is asked again. */
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
 * What the Hub's API says a commit holds, checked: its names become paths.
 *
 * @throws PatchwiseError
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
    `${server} lists ${quote(String(name))}, which cannot be trusted with a place in the cache (${String(field)}: ${message}); use another HF_ENDPOINT.`,
  );
}

export interface Listing {
  readonly commit: string;
  readonly files: readonly HubFile[];
}

export interface CachedCommit {
  readonly commit: string;
  /** Undefined where a client made the snapshot that keeps no list. */
  readonly files: readonly HubFile[] | undefined;
}

/** One model's part of the cache. */
export interface RepoCache {
  readonly folder: string;
  snapshot(commit: string): string;
  blob(file: HubFile): string;
  /** What the cache knows of a revision. */
  find(): Promise<CachedCommit | undefined>;
  /** The files that a snapshot has, whoever made it. */
  held(commit: string): Promise<Held[]>;
  has(commit: string, file: Held): Promise<boolean>;
  /** Gives a blob its name in a snapshot. */
  place(commit: string, file: HubFile): Promise<void>;
  /** Notes which commit the revision is at, and what that holds. */
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
      // Python calls a cache corrupt where a reference leads to no snapshot.
      await refusing(folder, async () => {
        for (const path of [snapshot(commit), dirname(tree(commit)), dirname(reference)]) {
          await mkdir(path, { recursive: true });
        }
      });
      await writeFileAtomic(tree(commit), Buffer.from(JSON.stringify(treeOf(files), null, 1)));
      if (!isCommit) await writeFileAtomic(reference, Buffer.from(commit));
    },
  };
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Bytes of a file, or undefined where there is none; a link that leads nowhere is none. */
export async function sizeOfFile(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.size;
}

/** @throws PatchwiseError in the place of the system's own errors */
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
  await mkdir(dirname(pointer), { recursive: true });
  // Made aside and renamed, so that another process never finds the name gone; relative, so that a cache can be moved.
  const aside = `${pointer}.${process.pid}.tmp`;
  await rm(aside, { force: true });
  await symlink(relative(dirname(pointer), blob), aside).catch((error: unknown) => {
    // Windows lets not everyone make symbolic links; Python then does without them too.
    if ((error as NodeJS.ErrnoException).code === "EPERM") return link(blob, aside);
    throw error;
  });
  await rename(aside, pointer);
}
