/** The part of OpenAPI's schemas that Kubernetes describes its manifests with. */

export interface Schema {
  /** The name of another schema of the file. */
  readonly $ref?: string;
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly enum?: readonly unknown[];
  readonly pattern?: string;
  readonly minimum?: number;
  readonly minItems?: number;
  readonly anyOf?: readonly Schema[];
}

/** Schemas by their names. */
export type Schemas = Readonly<Record<string, Schema>>;

/**
 * What a value has that its schema does not allow. As the API server does, names that the schema lacks are refused in strict mode.
 *
 * @param others what `$ref` may name
 * @param at the path of the value, of which each fault begins
 */
export function wrong(value: unknown, given: Schema, others: Schemas = {}, at = ""): string[] {
  if (given.$ref !== undefined) {
    const named = others[given.$ref];
    return named ? wrong(value, named, others, at) : [`${at} has no schema ${given.$ref} here`];
  }
  if (given.enum && !given.enum.includes(value)) return [`${at} is ${String(value)}`];
  switch (given.type) {
    case "object":
      return wrongObject(value, given, others, at);
    case "array":
      if (!Array.isArray(value)) return [`${at} is no list`];
      return value.length < (given.minItems ?? 0)
        ? [`${at} has ${value.length} items`]
        : value.flatMap((each, i) => wrong(each, given.items ?? {}, others, `${at}[${i}]`));
    case "integer":
      return Number.isInteger(value) && (value as number) >= (given.minimum ?? -Infinity)
        ? []
        : [`${at} is no such whole number`];
    default:
      return wrongScalar(value, given, others, at);
  }
}

function wrongScalar(value: unknown, given: Schema, others: Schemas, at: string): string[] {
  const { type } = given;
  if ((type === "string" || type === "boolean") && typeof value !== type) {
    return [`${at} is no ${type}`];
  }
  if (given.pattern !== undefined && !new RegExp(given.pattern).test(String(value))) {
    return [`${at} is ${String(value)}`];
  }
  const faults = given.anyOf?.map((each) => wrong(value, each, others, at)) ?? [[]];
  return faults.some((each) => each.length === 0) ? [] : faults[0]!;
}

function wrongObject(value: unknown, given: Schema, others: Schemas, at: string): string[] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return [`${at} is no object`];
  }
  const missing = (given.required ?? []).filter((name) => !(name in value));
  const inner = Object.entries(value).flatMap(([name, each]) => {
    const rule = given.properties?.[name] ?? given.additionalProperties;
    if (rule) return wrong(each, rule, others, `${at}.${name}`);
    return given.properties ? [`${at}.${name} is unknown`] : [];
  });
  return [...missing.map((name) => `${at}.${name} is missing`), ...inner];
}
