import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { FormatError, PatchwiseError } from "../../src/engine/errors.ts";
import { ndarray, zeros } from "../../src/engine/arrays/ndarray.ts";
import { openSafetensors } from "../../src/weights/safetensors/safetensors.ts";
import { openSafetensorsUrl } from "../../src/weights/safetensors/url.ts";
import { safetensorsBytes } from "../../src/weights/safetensors/write.ts";
import { blobSource, type ByteSource, bytesSource } from "../../src/weights/sources/source.ts";
import { urlSource } from "../../src/weights/sources/url.ts";

const content = Uint8Array.from({ length: 1000 }, (_, i) => i & 255);

/** What every source over `content` must answer: see `expected`. */
async function answersOf(source: ByteSource) {
  const own = await source.read(5, 1);
  own[0] = 99;
  const outside = [
    [-1, 2],
    [0, -1],
    [999, 2],
    [1001, 0],
    [0.5, 1],
    [NaN, 1],
    [0, Infinity],
  ] as const;
  const refusals = outside.map(async ([offset, length]) => {
    const error: unknown = await source.read(offset, length).catch((reason: unknown) => reason);
    const message = `${source.name}: cannot read ${length} bytes from byte ${offset}: it has 1000 bytes; ask for a range inside.`;
    return error instanceof PatchwiseError && error.message === message;
  });
  return {
    size: source.size,
    start: await source.read(0, 3),
    end: await source.read(997, 3),
    nothing: await source.read(1000, 0),
    all: await source.read(0, 1000),
    unaffected: await source.read(5, 1),
    refusesOutside: (await Promise.all(refusals)).every(Boolean),
  };
}

const expected = {
  size: 1000,
  start: Uint8Array.of(0, 1, 2),
  end: content.slice(997),
  nothing: new Uint8Array(0),
  all: content,
  unaffected: Uint8Array.of(5),
  refusesOutside: true,
};

describe("bytesSource", () => {
  it("reads a Uint8Array, an ArrayBuffer, and a view into a longer one", async () => {
    expect(await answersOf(bytesSource(content))).toEqual(expected);
    expect(await answersOf(bytesSource(content.slice().buffer))).toEqual(expected);
    const longer = new Uint8Array(1100);
    longer.set(content, 50);
    expect(await answersOf(bytesSource(longer.subarray(50, 1050)))).toEqual(expected);
    expect(await answersOf(bytesSource(Buffer.from(content)))).toEqual(expected);
  });
});

describe("blobSource", () => {
  it("reads a Blob", async () => {
    expect(await answersOf(blobSource(new Blob([content])))).toEqual(expected);
  });

  it("slices only the requested range, and takes the name of a File", async () => {
    const slices: [number, number][] = [];
    class RecordedFile extends File {
      override slice(start = 0, end = this.size): Blob {
        slices.push([start, end]);
        return super.slice(start, end);
      }
    }
    const bytes = safetensorsBytes([
      ["a", zeros("float32", [500])],
      ["b", ndarray("uint8", [2], [7, 8])],
    ]);
    const source = blobSource(new RecordedFile([bytes], "picked.safetensors"));
    expect(source.name).toBe("picked.safetensors");
    const weights = await openSafetensors(source);
    expect((await weights.read("b")).data).toEqual(Uint8Array.of(7, 8));
    const dataStart = bytes.length - 2002;
    expect(slices).toEqual([
      [0, 8],
      [8, dataStart],
      [bytes.length - 2, bytes.length],
    ]);
  });
});

describe("urlSource", () => {
  let server: Server | undefined;
  afterEach(async () => {
    server?.closeAllConnections();
    await new Promise<void>((done) => (server ? server.close(() => done()) : done()));
    server = undefined;
  });

  async function serve(listener: RequestListener): Promise<string> {
    const started = createServer(listener);
    server = started;
    await new Promise<void>((done) => started.listen(0, "127.0.0.1", done));
    return `http://127.0.0.1:${(started.address() as AddressInfo).port}`;
  }

  /** Answers ranges of `bytes`, and records them. */
  function ranges(bytes: Uint8Array, seen: string[] = []): RequestListener {
    return (request, response) => {
      seen.push(request.headers.range ?? request.method ?? "");
      const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
      if (first === undefined || Number(first) >= bytes.length) {
        response.writeHead(416, { "Content-Range": `bytes */${bytes.length}` }).end();
        return;
      }
      const part = bytes.subarray(Number(first), Number(last) + 1);
      response
        .writeHead(206, {
          "Content-Range": `bytes ${first}-${last}/${bytes.length}`,
          "Content-Length": part.length,
          ETag: '"1"',
        })
        .end(part);
    };
  }

  it("reads by range", async () => {
    expect(await answersOf(await urlSource(`${await serve(ranges(content))}/m`))).toEqual(expected);
  });

  it("opens weights and fetches only the requested tensor", async () => {
    const bytes = safetensorsBytes([
      ["a", zeros("float32", [100_000])],
      ["b", ndarray("uint8", [2], [7, 8])],
    ]);
    const seen: string[] = [];
    const url = `${await serve(ranges(bytes, seen))}/model.safetensors`;
    const weights = await openSafetensorsUrl(url);
    expect((await weights.read("b")).data).toEqual(Uint8Array.of(7, 8));
    const dataStart = bytes.length - 400_002;
    expect(seen).toEqual([
      "bytes=0-0",
      "bytes=0-7",
      `bytes=8-${dataStart - 1}`,
      `bytes=${bytes.length - 2}-${bytes.length - 1}`,
    ]);
  });

  it("opens the shards beside an index, with the index's query", async () => {
    const shard = (name: string) => safetensorsBytes([[name, ndarray("uint8", [1], [1])]]);
    const index = JSON.stringify({ weight_map: { a: "s 1.safetensors", b: "s2.safetensors" } });
    const files = new Map<string, Uint8Array>([
      ["/x/m.safetensors.index.json?key=1", new TextEncoder().encode(index)],
      ["/x/s%201.safetensors?key=1", shard("a")],
      ["/x/s2.safetensors?key=1", shard("b")],
    ]);
    const origin = await serve((request, response) =>
      ranges(files.get(request.url ?? "") ?? new Uint8Array(0))(request, response),
    );
    const weights = await openSafetensorsUrl(`${origin}/x/m.safetensors.index.json?key=1`);
    expect((await weights.read("a")).data).toEqual(Uint8Array.of(1));
    expect([...weights.entries.keys()]).toEqual(["a", "b"]);
  });

  it("stops at once, without downloading, when the server ignores Range", async () => {
    let sent = 0;
    const piece = new Uint8Array(2 ** 16);
    const url = await serve((_, response) => {
      response.writeHead(200, { "Content-Length": 2 ** 30 });
      const more = () => {
        while (sent < 2 ** 30 && !response.destroyed) {
          sent += piece.length;
          if (!response.write(piece)) break;
        }
      };
      response.on("drain", more);
      more();
    });
    const error = await urlSource(`${url}/big`).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(FormatError);
    expect((error as Error).message).toBe(
      `${url}/big: the server ignores Range (it answered 200, not 206), so each read would download the whole file; download it once and open it from disk.`,
    );
    expect(sent).toBeLessThan(2 ** 26);
  });

  it("opens an empty file", async () => {
    const source = await urlSource(`${await serve(ranges(new Uint8Array(0)))}/m`);
    expect(source.size).toBe(0);
  });

  it("asks with HEAD when Content-Range is hidden", async () => {
    const plain = ranges(content);
    const url = await serve((request, response) => {
      if (request.method === "HEAD") response.writeHead(200, { "Content-Length": 1000 }).end();
      else plain(request, response);
    });
    const hiding: typeof fetch = async (input, init) => {
      const response = await fetch(input, init);
      const headers = new Headers(response.headers);
      headers.delete("content-range");
      return new Response(response.body, { status: response.status, headers });
    };
    expect(await answersOf(await urlSource(`${url}/m`, { fetch: hiding }))).toEqual(expected);
  });

  it("explains an unknown size", async () => {
    const url = await serve((_, response) => {
      response.writeHead(206, { "Content-Range": "bytes 0-0/*", "Transfer-Encoding": "chunked" });
      response.end(Uint8Array.of(0));
    });
    await expect(urlSource(`${url}/m`)).rejects.toThrow(
      `${url}/m: the server does not report the file's size (neither Content-Range nor Content-Length); download the file and open it from disk.`,
    );
  });

  it.each([
    [404, "Not Found"],
    [401, "Unauthorized"],
    [500, "Internal Server Error"],
  ])("reports %i", async (status, text) => {
    const url = await serve((_, response) => response.writeHead(status).end("<html>"));
    await expect(urlSource(`${url}/m?token=secret`)).rejects.toThrow(
      `${url}/m: the server answered ${status} ${text}; check the address and that you may read it.`,
    );
  });

  it("reports a server that cannot be reached, without the address's secrets", async () => {
    const url = await serve(() => undefined);
    server?.closeAllConnections();
    await new Promise((done) => server?.close(done));
    server = undefined;
    const error = await urlSource(`${url}/m?token=secret#x`).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(PatchwiseError);
    expect((error as Error).message).toMatch(
      new RegExp(
        `^${url}/m: the request failed \\(.*ECONNREFUSED.*\\); check the address and the connection\\.$`,
      ),
    );
  });

  it("notices a file that changes between two reads", async () => {
    let version = 1;
    const url = await serve((request, response) => {
      const [, first, last] = /(\d+)-(\d+)/.exec(request.headers.range ?? "") ?? [];
      response
        .writeHead(206, { "Content-Range": `bytes ${first}-${last}/1000`, ETag: `"${version}"` })
        .end(content.subarray(Number(first), Number(last) + 1));
    });
    const source = await urlSource(`${url}/m`);
    await source.read(0, 4);
    version = 2;
    await expect(source.read(0, 4)).rejects.toThrow(
      `${url}/m: asked for bytes 0 to 3 of 1000, the server answered bytes 0-3/1000 from another version of the file; open it again.`,
    );
  });

  it("checks that the server sends the whole requested range", async () => {
    let answer: [range: string, body: Uint8Array] = ["", content];
    const url = await serve((request, response) => {
      if (request.headers.range === "bytes=0-0") ranges(content)(request, response);
      else {
        const [range, body] = answer;
        response.writeHead(206, { "Content-Range": range, ETag: '"1"' }).end(body);
      }
    });
    const source = await urlSource(`${url}/m`);
    answer = ["bytes 0-9/1000", content.subarray(0, 10)];
    await expect(source.read(10, 10)).rejects.toThrow(
      `${url}/m: asked for bytes 10 to 19 of 1000, the server answered bytes 0-9/1000; open it again.`,
    );
    answer = ["bytes 10-19/1000", content.subarray(10, 15)];
    await expect(source.read(10, 10)).rejects.toThrow(
      `${url}/m: asked for 10 bytes from byte 10, the server sent only 5; try again.`,
    );
    answer = ["bytes 10-19/1000", content.subarray(10, 25)];
    await expect(source.read(10, 10)).rejects.toThrow(
      `${url}/m: asked for 10 bytes from byte 10, the server sent more; try again.`,
    );
  });

  it("reports a connection that breaks in the middle", async () => {
    const url = await serve((request, response) => {
      if (request.headers.range === "bytes=0-0") return ranges(content)(request, response);
      response.writeHead(206, {
        "Content-Range": "bytes 0-999/1000",
        "Content-Length": 1000,
        ETag: '"1"',
      });
      response.write(content.subarray(0, 100), () => response.destroy());
    });
    const source = await urlSource(`${url}/m`);
    await expect(source.read(0, 1000)).rejects.toThrow(
      /\/m: the connection broke after \d+ of 1000 bytes \(.*\); try again\.$/,
    );
  });

  it("sends the caller's headers and asks for uncompressed bytes", async () => {
    const seen: unknown[] = [];
    const url = await serve((request, response) => {
      seen.push([request.headers.authorization, request.headers["accept-encoding"]]);
      ranges(content)(request, response);
    });
    await urlSource(`${url}/m`, { headers: { Authorization: "Bearer x" } });
    expect(seen).toEqual([["Bearer x", "identity"]]);
  });

  it("stops on abort with the signal's reason", async () => {
    const stop = new AbortController();
    const url = await serve(() => stop.abort(new Error("enough")));
    await expect(urlSource(`${url}/m`, { signal: stop.signal })).rejects.toThrow("enough");
  });
});
