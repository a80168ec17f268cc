import { describe, expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import { accessTo } from "../../src/server/access.ts";
import { nextJobs } from "../../src/server/dispatch.ts";
import { jobLog } from "../../src/server/job-log.ts";
import { startPage } from "../../src/server/server.ts";

describe("access to the server", () => {
  it("needs a token where others can reach it", () => {
    for (const host of ["0.0.0.0", "::", "192.168.1.5", "example.org"]) {
      expect(() => accessTo(host, undefined)).toThrow(UsageError);
      expect(() => accessTo(host, "short")).toThrow("fewer than 8");
      const access = accessTo(host, "a long secret");
      for (const given of [
        undefined,
        "",
        "Bearer wrong",
        "a long secret",
        "Bearer a long secret",
      ]) {
        expect(() => access.checkToken(given)).toThrow("no valid token");
      }
    }
    const access = accessTo("0.0.0.0", "secret-token");
    access.checkToken("Bearer secret-token");
    access.checkToken(`Basic ${Buffer.from("anyone:secret-token").toString("base64")}`);
  });

  it("refuses pages of other hosts, and requests that name one", () => {
    const access = accessTo("127.0.0.1", undefined);
    for (const [host, origin] of [
      ["evil.example:7860", undefined],
      ["127.0.0.1.evil.example", undefined],
      ["localhost:7860", "https://evil.example"],
      ["localhost:7860", "http://localhost.evil.example"],
      ["localhost:7860", "nonsense"],
      ["localhost:7860", "null"],
    ]) {
      expect(() => access.checkOrigin(host, origin)).toThrow(/not for the host|may not ask/);
    }
    access.checkOrigin("localhost:7860", "http://localhost:5173");
    access.checkOrigin("[::1]:7860", undefined);
    accessTo("0.0.0.0", "secret-token").checkOrigin("me.example", "http://me.example");
  });
});

it.each([99_999, -1, 80.5])("does not start at port %s", async (port) => {
  await expect(startPage(port)).rejects.toThrow(
    `The port is ${port}; give a whole number from 0 to 65535.`,
  );
});

describe("the next jobs", () => {
  const job = (key: string, count = 1, crashes = 0) => ({
    key,
    record: { crashes, settings: { count } as never },
  });
  const processes = (held: Record<string, number>) =>
    new Map(
      Object.entries(held).map(([key, places]) => [
        key,
        { key, jobs: new Map(places > 0 ? [["x", places]] : []) },
      ]),
    );
  const next = (
    waiting: readonly ReturnType<typeof job>[],
    held: Record<string, number>,
    room = true,
  ) =>
    nextJobs(waiting, { processes: processes(held), hasRoom: () => room }, 4).map((each) =>
      waiting.indexOf(each),
    );

  it("fill the places of a process in their order", () => {
    expect(next([job("a", 2), job("a", 1), job("a", 3), job("a")], { a: 1 })).toEqual([0, 1]);
    expect(next([job("a", 9), job("a")], { a: 0 })).toEqual([0]);
  });

  it("start one process at a time, and wait for room in their order", () => {
    expect(next([job("a"), job("b"), job("a")], {})).toEqual([0]);
    expect(next([job("b"), job("a")], { a: 1 }, false)).toEqual([]);
    expect(next([job("a", 4), job("b")], { a: 1, b: 0 })).toEqual([1]);
  });

  it("are drawn alone if they may end their process", () => {
    expect(next([job("a", 1, 1), job("a")], { a: 0 })).toEqual([0]);
    expect(next([job("a", 1, 1), job("a")], { a: 1 })).toEqual([]);
    expect(next([job("a")], { a: Infinity })).toEqual([]);
  });
});

describe("the log of a job", () => {
  const never = new AbortController().signal;
  const progress = (step: number) => ({ kind: "progress", step, steps: 3 }) as const;
  const seen = async (log: ReturnType<typeof jobLog>, after: number, signal = never) => {
    const ids = [];
    for await (const { id } of log.follow(after, signal)) ids.push(id);
    return ids;
  };

  it("is followed from any event, also from one of another life", async () => {
    const log = jobLog();
    for (const step of [1, 2]) log.add(progress(step));
    const following = [seen(log, 0), seen(log, 1), seen(log, 99)];
    log.add(progress(3));
    await Promise.resolve();
    setImmediate(() => log.end());
    await expect(Promise.all(following)).resolves.toEqual([
      [1, 2, 3],
      [2, 3],
      [1, 2, 3],
    ]);
  });

  it("is left by a signal", async () => {
    const leaving = new AbortController();
    const following = seen(jobLog(), 0, leaving.signal);
    leaving.abort();
    await expect(following).resolves.toEqual([]);
  });
});
