/** How a model on the Hugging Face Hub, or one file of it, is written. */

export interface HubId {
  /** "owner/name". */
  readonly repo: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
  /** Path of a file in the repository, parted by "/"; all of a model where there is none. */
  readonly file?: string;
}

// As the Hub limits them: https://huggingface.co/docs/huggingface_hub/package_reference/utilities
const name = /[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?/.source;
const notation = new RegExp(`^(${name}/${name})(?:@([^:@]+))?(?::(.+))?$`);

// A path that leads to no file is a path all the same, as DiT-LX/2 is a preset mistyped, and no one calls a model so.
const fileName = /\.(safetensors|json|ckpt|pth?|bin|gguf|onnx|ya?ml|png|zip|git)$/i;

/**
 * Reads `owner/name`, `owner/name@revision`, and either with `:path/of/a/file.safetensors` behind it.
 *
 * @returns undefined where the text is none of them
 */
export function parseHubId(text: string): HubId | undefined {
  const [, repo, revision = "main", file] = notation.exec(text) ?? [];
  if (repo === undefined || /--|\.\.|\/\d+$/.test(repo) || fileName.test(repo)) return undefined;
  if (!/^[\w.+/-]+$/.test(revision) || !isPlainPath(revision)) return undefined;
  if (file !== undefined && !isPlainPath(file)) return undefined;
  return { repo, revision, ...(file !== undefined && { file }) };
}

/** Whether a path parted by "/" stays in the folder that it is joined to, on every system. */
export function isPlainPath(path: string): boolean {
  if (/[\\\p{Cc}]|^[A-Za-z]:/u.test(path)) return false;
  return path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}
