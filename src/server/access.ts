/**
 * Who may ask. A server on a loopback address serves this machine alone, but every page that a browser shows could ask it too; so
 * requests that name another host, or come from a page of another, are refused. Any other address needs a token.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { UsageError } from "../engine/errors.ts";
import { Problem } from "./problem.ts";

export interface Access {
  /** @throws Problem if the headers Host and Origin show that a page of another host asks */
  checkOrigin(host: string | undefined, origin: string | undefined): void;
  /** @throws Problem unless the header Authorization has the token, as Bearer, or as the password of Basic */
  checkToken(authorization: string | undefined): void;
}

const loopback = /^(?:localhost|127(?:\.\d+){3}|\[?::1\]?)$/;

/**
 * @param host the address to listen on
 * @throws UsageError if the address is not of this machine alone and there is no token, or a token is too short to be safe
 */
export function accessTo(host: string, token: string | undefined): Access {
  const isLocal = loopback.test(host);
  if (!isLocal && token === undefined) {
    throw new UsageError(
      `Others can reach the address ${host}, so requests need a token; give --token or PATCHWISE_TOKEN, or listen on 127.0.0.1.`,
    );
  }
  if (token !== undefined && token.length < 8) {
    throw new UsageError(
      "The token has fewer than 8 characters, so it can be guessed; give a longer one.",
    );
  }
  return {
    checkOrigin(asked, origin) {
      if (isLocal && token === undefined && asked !== undefined && !loopback.test(nameIn(asked))) {
        throw new Problem(
          403,
          `This server is for its own machine, not for the host ${asked}; ask localhost, or start it with --token.`,
        );
      }
      if (origin === undefined) return;
      const from = URL.canParse(origin) ? new URL(origin).host : "";
      if (from === asked || loopback.test(nameIn(from))) return;
      throw new Problem(403, `Pages of ${origin} may not ask this server.`);
    },
    checkToken(authorization = "") {
      if (token === undefined) return;
      const [, scheme = "", value = ""] = /^(\S+) +(\S+)$/.exec(authorization) ?? [];
      const given =
        scheme.toLowerCase() === "basic"
          ? Buffer.from(value, "base64")
              .toString()
              .replace(/^[^:]*:/, "")
          : value;
      // Hashes have one length, and are compared in one time.
      if (timingSafeEqual(hash(given), hash(token))) return;
      throw new Problem(401, "The request has no valid token; send Authorization: Bearer TOKEN.", {
        code: "invalid_api_key",
      });
    },
  };
}

function nameIn(host: string): string {
  return host.replace(/:\d+$/, "").toLowerCase();
}

function hash(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
