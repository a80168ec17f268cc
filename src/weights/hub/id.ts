/** Parses the names of models and files on the Hugging Face Hub. */

export interface HubId {
  /** "owner/name". */
  readonly repo: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
  /** Path of a file in the repository, separated by "/"; absent for the whole model. */
  readonly file?: string;
}

// The Hub's own limits: https://huggingface.co/docs/huggingface_hub/package_reference/utilities
const name = /[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?/.source;
const notation = new RegExp(`^(${name}/${name})(?:@([^:@]+))?(?::(.+))?$`);

// Paths and presets can look like names of models, but no model is named like a file or like DiT-XL/2.
const fileName = /\.(safetensors|json|ckpt|pth?|bin|gguf|onnx|ya?ml|png|zip|git)$/i;

/**
 * Parses `owner/name` and `owner/name@revision`, each optionally followed by `:path/of/a/file.safetensors`.
 *
 * @returns undefined if the text is none of these
 */
export function parseHubId(text: string): HubId | undefined {
  const [, repo, revision = "main", file] = notation.exec(text) ?? [];
  if (repo === undefined || /--|\.\.|\/\d+$/.test(repo) || fileName.test(repo)) return undefined;
  if (!/^[\w.+/-]+$/.test(revision) || !isPlainPath(revision)) return undefined;
  if (file !== undefined && !isPlainPath(file)) return undefined;
  return { repo, revision, ...(file !== undefined && { file }) };
}

/** Returns true if a path with "/" stays inside the folder to which it is joined, on every system. */
export function isPlainPath(path: string): boolean {
  if (/[\\\p{Cc}]|^[A-Za-z]:/u.test(path)) return false;
  return path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}
