/** Bodies of requests, as JSON objects. */
import type { Context } from "hono";
import { Problem } from "./problem.ts";

/** @throws Problem unless the body is a JSON object */
export async function jsonBody(c: Context): Promise<Record<string, unknown>> {
  const type = c.req.header("content-type") ?? "";
  // A form of another page can send other types without asking first.
  if (!/^application\/(?:\w+\+)?json\b/i.test(type)) {
    throw new Problem(
      415,
      `The body is of the type ${JSON.stringify(type)}; send application/json.`,
    );
  }
  const text = await c.req.text();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Problem(400, `The body is not valid JSON: ${(error as Error).message}.`, {
      cause: error,
    });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new Problem(400, "The body must be a JSON object.");
}

/** Fields whose value is null count as not given, as clients of typed languages send them. */
export function withoutNulls(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
}
