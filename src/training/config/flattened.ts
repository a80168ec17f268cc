/** Leaves of plain data by path, as JSON; a list is a leaf, and what is undefined is not there. */
export function flattened(value: unknown, path = ""): Map<string, string> {
  if (value === undefined) return new Map();
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return new Map([[path, JSON.stringify(value)]]);
  }
  const parts = Object.entries(value).flatMap(([key, inner]) => [
    ...flattened(inner, path === "" ? key : `${path}.${key}`),
  ]);
  return new Map(parts);
}
