import { describe, expect, it } from "vitest";
import { queueAddress } from "../../src/queue/address.ts";

describe("the address of a queue", () => {
  it("has one or several servers, 4222 unless another port is given", () => {
    expect(queueAddress("nats://127.0.0.1:4333")).toEqual({
      servers: ["127.0.0.1:4333"],
      encrypted: false,
      shown: "nats://127.0.0.1:4333",
    });
    expect(queueAddress("tls://a.example, tls://b.example:5").servers).toEqual([
      "a.example:4222",
      "b.example:5",
    ]);
    expect(queueAddress("tls://a.example").encrypted).toBe(true);
  });

  it("shows neither passwords nor tokens", () => {
    const secret = queueAddress("nats://me:p%40ss@host");
    expect(secret).toMatchObject({ user: "me", pass: "p@ss", shown: "nats://host:4222" });
    expect(queueAddress("nats://t0ken@host")).toMatchObject({
      token: "t0ken",
      shown: "nats://host:4222",
    });
    expect(() => queueAddress("http://me:secret@host")).toThrow(/^(?!.*secret).*…@host/);
  });

  it.each(["", "127.0.0.1:4222", "http://127.0.0.1", "nats://", "nats://host/path", "nats://a,b"])(
    "%j is refused in a sentence",
    (text) => {
      expect(() => queueAddress(text)).toThrow(
        /^--queue is ".*", which is not the address of a NATS server; give one such as nats:\/\/127.0.0.1:4222.$/,
      );
    },
  );
});
