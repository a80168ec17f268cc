import { once } from "node:events";
import { setTimeout } from "node:timers/promises";
import { type AddressInfo, createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { openQueue, type Queue, type QueueOptions } from "../../src/queue/connection-node.ts";
import { freePort, hasNats, type NatsServer, startNats } from "../support/nats.ts";

describe.runIf(hasNats)("a connection to a queue", () => {
  let server: NatsServer | undefined;
  let queue: Queue | undefined;
  const opened = async (options?: QueueOptions) => {
    server = await startNats();
    queue = await openQueue(server.url, options);
    return queue;
  };
  afterEach(async () => {
    await queue?.close();
    await server?.remove();
    [queue, server] = [undefined, undefined];
  });

  it("creates streams, consumers and buckets once, and changes their config", async () => {
    const { createStream, createConsumer, keyValue, objects, manager } = await opened();
    for (const max_msgs of [10, 10, 20]) {
      await createStream({ name: "WORK", subjects: ["work.>"], max_msgs });
      await createConsumer("WORK", { durable_name: "workers", max_ack_pending: max_msgs });
    }
    const stream = await manager.streams.info("WORK");
    expect(stream.config.max_msgs).toBe(20);
    expect(stream.state.consumer_count).toBe(1);
    const { config } = await manager.consumers.info("WORK", "workers");
    expect(config.max_ack_pending).toBe(20);
    for (let i = 0; i < 2; i++) {
      const values = await keyValue("values");
      await values.put("a", `${i}`);
      const files = await objects("files");
      await files.putBlob({ name: "b" }, new Uint8Array([i]));
    }
    const [values, files] = [await keyValue("values"), await objects("files")];
    expect((await values.get("a"))?.string()).toBe("1");
    expect([...(await files.getBlob("b"))!]).toEqual([1]);
  });

  it("goes on when the server is back, with all that was stored", async () => {
    const said: string[] = [];
    const { createStream, createConsumer, jetstream, persist } = await opened({
      log: (text) => said.push(text),
    });
    await createStream({ name: "WORK", subjects: ["work"] });
    const consumer = await createConsumer("WORK", { durable_name: "workers" });
    const messages = await consumer.consume({ expires: 2000 });
    await jetstream.publish("work", "before");
    await server!.stop("SIGKILL");
    const publishing = persist(() => jetstream.publish("work", "after", { msgID: "after" }));
    await server!.start();
    await publishing;
    const heard: string[] = [];
    for await (const message of messages) {
      message.ack();
      if (!heard.includes(message.string())) heard.push(message.string());
      if (heard.includes("after")) break;
    }
    expect(heard).toEqual(["before", "after"]);
    expect(said).toEqual([
      `The connection to the queue at ${server!.url} is lost; work goes on when it is back.`,
      `The queue at ${server!.url} is back.`,
    ]);
  });

  it("gives up waiting for the server when a signal says so", async () => {
    const { jetstream, persist, createStream } = await opened();
    await createStream({ name: "WORK", subjects: ["work"] });
    await server!.stop();
    const controller = new AbortController();
    const publishing = persist(() => jetstream.publish("work", "x"), controller.signal);
    controller.abort(new Error("stopped"));
    await expect(publishing).rejects.toThrow("stopped");
  });

  it("goes on waiting for a message when the server is ended and started again", async () => {
    const { createStream, createConsumer, persist, jetstream } = await opened();
    await createStream({ name: "WORK", subjects: ["work"] });
    const consumer = await createConsumer("WORK", { durable_name: "one" });
    const message = persist(() => consumer.next({ expires: 30_000 }));
    await setTimeout(300);
    await server!.stop("SIGTERM");
    await server!.start();
    await persist(() => jetstream.publish("work", "x"));
    expect((await message)?.string()).toBe("x");
  }, 30_000);

  it("does not repeat what the server refuses", async () => {
    const { persist, manager } = await opened();
    await expect(persist(() => manager.streams.info("NONE"))).rejects.toThrow("stream not found");
  });

  it("says in a sentence that nothing answers", async () => {
    const url = `nats://127.0.0.1:${await freePort()}`;
    await expect(openQueue(url)).rejects.toThrow(
      new RegExp(`^The queue at ${url} cannot be reached \\(.*\\); check the address`),
    );
  });

  it.each([
    ["nothing", undefined, "it does not answer within 0.3 s"],
    [
      "that it is a web server",
      "HTTP/1.0 400 Bad Request\r\n\r\n",
      "what answers is no NATS server",
    ],
  ])("hangs up on what says %s", async (_, said, why) => {
    const hungUp: Promise<unknown>[] = [];
    const other = createServer((socket) => {
      hungUp.push(once(socket.on("error", () => {}).resume(), "close"));
      if (said !== undefined) socket.write(said);
    });
    await once(other.listen(0, "127.0.0.1"), "listening");
    const url = `nats://127.0.0.1:${(other.address() as AddressInfo).port}`;
    await expect(openQueue(url, { timeout: 300 })).rejects.toThrow(
      `The queue at ${url} cannot be reached (${why})`,
    );
    await Promise.all(hungUp);
    expect(hungUp).not.toHaveLength(0);
    other.close();
  });

  it("says in a sentence that the server keeps no streams, or refuses access", async () => {
    server = await startNats([]);
    await expect(openQueue(server.url)).rejects.toThrow(
      `The NATS server at ${server.url} keeps no streams; start it with JetStream: nats-server --jetstream --store_dir DIR.`,
    );
    await server.remove();
    server = await startNats(["--jetstream", "--user", "me", "--pass", "secret"]);
    await expect(openQueue(server.url)).rejects.toThrow(
      `The queue at ${server.url} refuses access; give its user and password`,
    );
    queue = await openQueue(server.url.replace("//", "//me:secret@"));
    expect(queue.url).toBe(server.url);
  });
});
