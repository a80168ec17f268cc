/**
 * The events of all jobs, in one stream: an event's number is its place in the stream, which is the same whichever server is asked.
 * A server adds an event only behind the last one that it knows of, so that one which has lost its job to another adds none to it.
 */
import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import type { StoredMsg } from "@nats-io/jetstream";
import { turns } from "../../engine/turns.ts";
import type { Queue } from "../../queue/connection-node.ts";
import { isOutdated } from "../../queue/link-node.ts";
import type { JobEvents, NumberedEvent, Preview } from "../job-log.ts";
import { isOver } from "../job-view.ts";
import type { AnyJob, JobEvent } from "../wire.ts";
import { eventStream, eventSubject, eventSubjects } from "./names.ts";
import { type Call, previewFile, type SharedStore } from "./store.ts";

/** An event in the stream. */
interface Stored {
  /** By which the one who added it knows it. */
  readonly by: string;
  /** A large preview is without its pictures. */
  readonly event: JobEvent;
  /** The file with the pictures of a large preview. */
  readonly file?: string;
}

/** Adds the events of a job while this server draws it. */
export interface EventWriter {
  /** Adds an event behind those before; it does nothing once another server has added one. */
  add(event: JobEvent): Promise<void>;
  /** Resolves when all events are added. */
  settled(): Promise<void>;
}

export interface SharedEvents {
  writer(id: string): Promise<EventWriter>;
  /** Adds the first event of a job. */
  begin(job: AnyJob, call: Call): Promise<void>;
  /** Adds the last event of a job, unless it is there. */
  end(job: AnyJob): Promise<void>;
  of(id: string): JobEvents;
  /** The last event of a job, without previews. */
  last(id: string, call: Call): Promise<NumberedEvent | undefined>;
  remove(id: string, call: Call): Promise<void>;
  close(): void;
}

/** Previews above it are kept as files, since a message of NATS has at most 1 MiB. */
const LARGE = 500_000;
/** Milliseconds after which a follower looks for events of which it was not told. */
const LOOK_AGAIN = 2000;

export async function openSharedEvents(queue: Queue, files: SharedStore): Promise<SharedEvents> {
  const { StorageType } = queue.modules.jetstream;
  await queue.createStream({
    name: eventStream,
    subjects: [eventSubjects],
    storage: StorageType.File,
    // A preview takes the place of the one before it.
    allow_rollup_hdrs: true,
  });
  const closing = new AbortController();
  const tail = tailOf(queue, closing.signal);
  const { last, append, shown, addPreview } = { ...logOf(queue), ...previewsOf(queue, files) };
  const follow = followerOf(queue, last, shown, tail);
  return {
    last,
    close: () => closing.abort(),
    begin: async (job, call) => void (await append(job.id, 0, { kind: "job", job }, call)),
    async writer(id) {
      let behind: number | undefined = (await last(id, queue.persist))?.id ?? 0;
      const turn = turns();
      return {
        settled: () => turn(async () => {}),
        add: (event) =>
          turn(async () => {
            if (behind === undefined) return;
            if (event.kind === "preview") await addPreview(id, event);
            else behind = await append(id, behind, event, queue.persist);
          }),
      };
    },
    async end(job) {
      for (;;) {
        const before = await last(job.id, queue.persist);
        const isThere = before?.event.kind === "job" && isOver(before.event.job);
        const event = { kind: "job", job } as const;
        if (!isThere && !(await append(job.id, before?.id ?? 0, event, queue.persist))) continue;
        // The last preview of a cancelled drawing can still be asked for.
        if (job.state !== "cancelled") await purge(job.id, "preview", queue.persist);
        return;
      }
    },
    of: (id) => ({
      follow: (after, signal) => follow(id, after, AbortSignal.any([signal, closing.signal])),
      async preview() {
        const filter = eventSubject(id, "preview");
        const found = await queue.attempt(() =>
          queue.manager.streams.getMessage(eventStream, { last_by_subj: filter }),
        );
        return found ? ((await shown(found)) as Preview | undefined) : undefined;
      },
    }),
    remove: (id, call) => purge(id, "*", call),
  };

  async function purge(id: string, part: "preview" | "*", call: Call): Promise<void> {
    const filter = eventSubject(id, part);
    await call(() => queue.manager.streams.purge(eventStream, { filter }));
  }
}

/** Reads the events of a job one after another, and waits for those to come. */
function followerOf(
  queue: Queue,
  last: SharedEvents["last"],
  shown: (message: StoredMsg) => Promise<JobEvent | undefined>,
  tail: ReturnType<typeof tailOf>,
) {
  return async function* follow(
    id: string,
    after: number,
    signal: AbortSignal,
  ): AsyncGenerator<NumberedEvent> {
    const call: Call = (made) => queue.persist(made, signal);
    try {
      const { state } = await call(() => queue.manager.streams.info(eventStream));
      // A number from another stream says nothing.
      let seen = after > state.last_seq ? 0 : after;
      const final = await last(id, call);
      if (final && isFinal(final.event) && final.id <= seen) return;
      let told: Promise<void> | undefined;
      while (!signal.aborted) {
        const query = { seq: seen + 1, next_by_subj: eventSubject(id, "*") };
        const found = await call(() => queue.manager.streams.getMessage(eventStream, query));
        if (!found && told) {
          await told;
          told = undefined;
        } else if (!found) {
          // What comes between this look and the next one is told.
          told = tail.told(id, signal);
        }
        if (!found) continue;
        seen = found.seq;
        const event = await shown(found);
        if (event) yield { id: seen, event };
        if (event && isFinal(event)) return;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  };
}

const isFinal = (event: JobEvent) => event.kind === "job" && isOver(event.job);

function logOf(queue: Queue) {
  const { streams } = queue.manager;
  const stored = async (id: string, call: Call) => {
    const query = { last_by_subj: eventSubject(id, "log") };
    const found = await call(() => streams.getMessage(eventStream, query));
    return found ? { id: found.seq, ...found.json<Stored>() } : undefined;
  };
  return {
    last: stored,
    /**
     * Adds an event behind that of a number, which is 0 for the first.
     *
     * @returns its number; undefined if there is another one behind
     */
    append: async (
      id: string,
      behind: number,
      event: JobEvent,
      call: Call,
    ): Promise<number | undefined> => {
      const by = randomUUID();
      const text = JSON.stringify({ by, event } satisfies Stored);
      return call(async () => {
        try {
          const { seq } = await queue.jetstream.publish(eventSubject(id, "log"), text, {
            expect: { lastSubjectSequence: behind },
          });
          return seq;
        } catch (error) {
          if (!isOutdated(error)) throw error;
        }
        // It may have been added by an earlier call whose answer was lost.
        const there = await stored(id, call);
        return there?.by === by ? there.id : undefined;
      });
    },
  };
}

function previewsOf(queue: Queue, files: SharedStore) {
  return {
    addPreview: async (id: string, event: Preview): Promise<void> => {
      const { headers } = queue.modules.transport;
      const by = randomUUID();
      let stored: Stored = { by, event };
      let text = JSON.stringify(stored);
      if (text.length > LARGE) {
        const file = previewFile(id);
        await files.addFile(file, Buffer.from(JSON.stringify(event.pictures)), queue.persist);
        stored = { by, event: { ...event, pictures: [] }, file };
        text = JSON.stringify(stored);
      }
      await queue.persist(() => {
        const rollup = headers();
        rollup.set("Nats-Rollup", "sub");
        return queue.jetstream.publish(eventSubject(id, "preview"), text, { headers: rollup });
      });
    },
    /** The event of a message; undefined for a preview whose pictures are gone. */
    shown: async (message: StoredMsg): Promise<JobEvent | undefined> => {
      const { event, file } = message.json<Stored>();
      if (file === undefined || event.kind !== "preview") return event;
      const bytes = await files.file(file, queue.persist);
      if (!bytes) return undefined;
      return { ...event, pictures: JSON.parse(Buffer.from(bytes).toString()) as string[] };
    },
  };
}

/** Tells followers that there is something new. What it misses they find when they look again. */
function tailOf(queue: Queue, signal: AbortSignal) {
  const waiting = new Map<string, Set<() => void>>();
  const listen = async () => {
    const { DeliverPolicy } = queue.modules.jetstream;
    while (!signal.aborted) {
      try {
        const consumer = await queue.jetstream.consumers.get(eventStream, {
          deliver_policy: DeliverPolicy.New,
          headers_only: true,
        });
        const messages = await consumer.consume();
        const stop = () => messages.stop();
        signal.addEventListener("abort", stop);
        for await (const { subject } of messages) {
          for (const tell of waiting.get(subject.split(".")[2]!) ?? []) tell();
        }
      } catch {
        // The server is away.
      }
      await setTimeout(500);
    }
  };
  void listen();
  return {
    /** Resolves when a job may have a new event. */
    told: (id: string, gone: AbortSignal) =>
      new Promise<void>((resolve) => {
        const all = waiting.get(id) ?? new Set();
        waiting.set(id, all);
        const done = () => {
          clearTimeout(timer);
          gone.removeEventListener("abort", done);
          all.delete(done);
          if (all.size === 0 && waiting.get(id) === all) waiting.delete(id);
          resolve();
        };
        const timer = globalThis.setTimeout(done, LOOK_AGAIN);
        gone.addEventListener("abort", done);
        all.add(done);
      }),
  };
}
