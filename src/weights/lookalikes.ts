/** Files that are passed as weights by mistake, recognized by their first bytes. */

const others: readonly (readonly [begins: RegExp, what: string])[] = [
  [
    /^version /,
    "a Git LFS pointer, not the weights; run `git lfs pull`, or download the file itself",
  ],
  [/^PK\u0003\u0004/, "a zip archive, perhaps a PyTorch checkpoint; convert it to safetensors"],
  [/^</, "a web page, perhaps an error or a login page; download the file itself"],
  [/^GGUF/, "a GGUF file; rename it so that its name ends in .gguf"],
  // The length of a header, and its first character.
  [/^[^]{4}\0{4}\{/, "a safetensors file; rename it so that its name ends in .safetensors"],
];

/** Describes a file that is not in the expected format and says what to do with it; undefined if its format is not known. */
export function lookalike(start: Uint8Array): string | undefined {
  const text = String.fromCharCode(...start.subarray(0, 9));
  return others.find(([begins]) => begins.test(text))?.[1];
}
