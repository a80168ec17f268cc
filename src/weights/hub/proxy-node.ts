/** Requests through the proxy that the environment names, which Node's own `fetch` passes by. */
import { quote, UsageError } from "../../engine/errors.ts";

/** Variables that name a proxy for a protocol, in the order in which curl and Python read them. */
const variables: Readonly<Record<string, readonly string[]>> = {
  "http:": ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
  "https:": ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
};

/** The variable that names the proxy for a URL, if any does; NO_PROXY may except its host nevertheless. */
export function proxyVariable(url: string): string | undefined {
  return variables[new URL(url).protocol]?.find((name) => process.env[name]);
}

/** `fetch` by the proxies of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; a function for each protocol is made once. */
export function proxiedFetch(): typeof fetch {
  const known = new Map<string, Promise<typeof fetch>>();
  return async (input, init) => {
    const url = input instanceof Request ? input.url : String(input);
    const variable = proxyVariable(url);
    if (variable === undefined) return fetch(input, init);
    if (!known.has(variable)) known.set(variable, fetchThrough(variable));
    return (await known.get(variable)!)(input, init);
  };
}

/** @throws UsageError if the variable holds no address of an HTTP proxy */
async function fetchThrough(variable: string): Promise<typeof fetch> {
  const undici = await import("undici");
  const proxy = process.env[variable]!;
  // Python and curl take an address without a protocol, too.
  const address = proxy.includes("://") ? proxy : `http://${proxy}`;
  const protocol = URL.canParse(address) ? new URL(address).protocol : "";
  if (protocol !== "http:" && protocol !== "https:") {
    throw new UsageError(
      `${variable} does not hold the address of an HTTP proxy${protocol && `, but one that begins with ${quote(protocol)}`}; set it to one such as http://proxy.example:3128.`,
    );
  }
  // Proxies for plain HTTP need not know tunnels.
  const options = { httpProxy: address, httpsProxy: address, proxyTunnel: false };
  const dispatcher = new undici.EnvHttpProxyAgent(options);
  const send = undici.fetch as unknown as (
    input: Parameters<typeof fetch>[0],
    init?: RequestInit & { dispatcher: typeof dispatcher },
  ) => Promise<Response>;
  return (input, init) => send(input, { ...init, dispatcher });
}
