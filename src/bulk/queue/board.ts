/**
 * What producers and workers share on NATS JetStream:
 *
 * - a stream of work, one subject a model and job, from which a message disappears once it is acknowledged;
 * - a stream of results, one subject a job: a picture is there, or cannot be drawn;
 * - a bucket of the files of pictures, until the producer has them;
 * - a bucket of the jobs that are under way, so that workers know for which models there is work.
 */
import { createHash } from "node:crypto";
import type { KV } from "@nats-io/kv";
import type { ObjectStore } from "@nats-io/obj";
import * as z from "zod";
import { canonical } from "../../data/latents/folder-node.ts";
import { tryJson } from "../../engine/bytes.ts";
import type { Queue } from "../../queue/connection-node.ts";
import type { GenerateRequest } from "../../pipelines/settings.ts";
import type { DrawnBy } from "../drawer.ts";

export const workStream = "patchwise-draw";
export const resultStream = "patchwise-drawn";

const NANOSECONDS = 1e9;
/** Entries that nobody has asked for are removed after a week. */
const WEEK = 7 * 24 * 3600 * NANOSECONDS;

/** Seconds without a sign of life after which the work of a worker is given to another one. */
export const ACK_WAIT = 5;

/** A job that is under way. */
export const jobSchema = z.object({
  /** Name of its model, and the digest of weights and config. */
  model: z.string(),
  digest: z.string(),
  /** The version of Patchwise, since another may draw other pictures. */
  version: z.string(),
  /** Number of its pictures. */
  pictures: z.int(),
});
export type Job = z.output<typeof jobSchema>;

/** A picture to draw. */
export const workSchema = z.object({
  job: z.string(),
  id: z.string(),
  request: z.record(z.string(), z.unknown()),
  by: z.object({ model: z.string(), version: z.string() }),
});
export type Work = z.output<typeof workSchema>;

/** A picture that is in the bucket under its id, or why there is none. */
export const resultSchema = z.object({ id: z.string(), error: z.string().optional() });

/** Both buckets; all streams exist once it is there. */
export interface Board {
  readonly pictures: ObjectStore;
  readonly jobs: KV;
}

/** Opens streams and buckets, which are made if there are none. */
export async function openBoard(queue: Queue): Promise<Board> {
  const { RetentionPolicy, DiscardPolicy } = queue.modules.jetstream;
  const duplicate_window = 600 * NANOSECONDS;
  await queue.createStream({
    name: workStream,
    subjects: ["patchwise.draw.>"],
    retention: RetentionPolicy.Workqueue,
    discard: DiscardPolicy.New,
    duplicate_window,
  });
  await queue.createStream({
    name: resultStream,
    subjects: ["patchwise.drawn.>"],
    max_age: WEEK,
    duplicate_window,
  });
  return {
    pictures: await queue.objects("patchwise-pictures", { ttl: WEEK }),
    jobs: await queue.keyValue("patchwise-jobs", { ttl: WEEK / 1e6 }),
  };
}

/** The models whose pictures are the same, as a part of a subject. */
export function kindOf({ digest, version }: Pick<Job, "digest" | "version">): string {
  return createHash("sha256").update(`${digest} ${version}`).digest("hex").slice(0, 16);
}

export function workSubject(kind: string, job: string): string {
  return `patchwise.draw.${kind}.${job}`;
}

export function resultSubject(job: string): string {
  return `patchwise.drawn.${job}`;
}

/** One number for a picture: that of its settings and model. */
export function pictureId(job: string, request: GenerateRequest, by: DrawnBy): string {
  return createHash("sha256").update(canonical({ job, request, by })).digest("hex").slice(0, 32);
}

/** Reads a message; undefined for one that is none of ours. */
export function readMessage<T extends z.ZodType>(schema: T, text: string): z.output<T> | undefined {
  return schema.safeParse(tryJson(text)).data;
}
