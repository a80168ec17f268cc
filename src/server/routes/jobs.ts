/** The server's own interface: jobs, what happens to them, and their pictures. */
import { readFile } from "node:fs/promises";
import { Hono } from "hono";
import { streamSSE } from "hono/streaming";
import type { Services } from "../app.ts";
import { jsonBody, withoutNulls } from "../body.ts";
import { Problem } from "../problem.ts";
import { draftOf, pictureBytes } from "../requests.ts";
import type { ModelList } from "../wire.ts";

/** Milliseconds between signs of life on a quiet stream, since proxies close those that seem dead. */
const HEARTBEAT = 15_000;
/** Jobs in a list unless another number is asked for. */
const LISTED = 100;

const mediaTypes: Readonly<Record<string, string>> = {
  png: "image/png",
  jpg: "image/jpeg",
  webp: "image/webp",
};

export function nativeRoutes({ catalogue, jobs, limits }: Services): Hono {
  const app = new Hono();
  app.get("/api/models", async (c) =>
    c.json<ModelList>({
      models: catalogue.models.map(({ info }) => info),
      loras: await catalogue.loraNames(),
      limits,
    }),
  );
  app.post("/api/jobs", async (c) => {
    const { image, mask, ...fields } = withoutNulls(await jsonBody(c));
    const draft = await draftOf(
      {
        fields,
        image: pictureBytes(image, "image"),
        mask: pictureBytes(mask, "mask"),
        fits: false,
        attached: false,
      },
      catalogue,
      limits,
    );
    const job = jobs.asJob(await jobs.submit(draft));
    return c.json(job, 202, { Location: `/api/jobs/${job.id}` });
  });
  app.get("/api/jobs", (c) => {
    const limit = Number(c.req.query("limit") ?? LISTED);
    if (!Number.isInteger(limit) || limit < 1) {
      throw new Problem(400, "limit must be a whole number of at least 1.", { param: "limit" });
    }
    return c.json({
      jobs: jobs
        .list()
        .slice(0, limit)
        .map((each) => jobs.asJob(each)),
    });
  });
  app.get("/api/jobs/:id", (c) => c.json(jobs.asJob(jobs.get(c.req.param("id")))));
  app.delete("/api/jobs/:id", async (c) =>
    c.json(jobs.asJob(await jobs.cancel(c.req.param("id"))), 202),
  );
  app.get("/api/jobs/:id/events", (c) => {
    const { log } = jobs.get(c.req.param("id"));
    const after = Number(c.req.header("last-event-id") ?? 0) || 0;
    return streamSSE(c, async (stream) => {
      const gone = new AbortController();
      stream.onAbort(() => gone.abort());
      const beat = setInterval(() => void stream.write(": alive\n\n"), HEARTBEAT);
      try {
        for await (const { id, event } of log.follow(after, gone.signal)) {
          await stream.writeSSE({
            id: String(id),
            event: event.kind,
            data: JSON.stringify(event),
          });
        }
      } finally {
        clearInterval(beat);
      }
    });
  });
  app.get("/api/jobs/:id/pictures/:index", async (c) => {
    const { record } = jobs.get(c.req.param("id"));
    const picture = record.pictures[Number(c.req.param("index"))];
    if (!picture) {
      throw new Problem(
        404,
        `The job has ${record.pictures.length} pictures; it is ${record.state}.`,
        { code: "picture_not_found" },
      );
    }
    const bytes = await readFile(jobs.path(record.id, picture.file));
    return c.body(new Uint8Array(bytes), 200, {
      "Content-Type": mediaTypes[picture.file.split(".")[1]!]!,
      "Cache-Control": "private, max-age=31536000, immutable",
    });
  });
  return app;
}
