/** The server's own interface: jobs, what happens to them, and their pictures. */
import { extname } from "node:path";
import { type Context, Hono } from "hono";
import { streamSSE } from "hono/streaming";
import type { Services } from "../app.ts";
import { jsonBody, withoutNulls } from "../body.ts";
import { type GivenName, givenNames, sampleFile, trainingFolders } from "../job-store.ts";
import { Problem } from "../problem.ts";
import { draftOf, pictureBytes, referenceBytes } from "../requests.ts";
import { trainingDraftOf } from "../training-requests.ts";
import type { ModelList } from "../wire.ts";

/** Milliseconds between signs of life on a quiet stream, since proxies close those that seem dead. */
const HEARTBEAT = 15_000;
/** Jobs in a list unless another number is asked for. */
const LISTED = 100;

const mediaTypes: Readonly<Record<string, string>> = {
  ".png": "image/png",
  ".jpg": "image/jpeg",
  ".webp": "image/webp",
  ".json": "application/json",
};

export function nativeRoutes(services: Services): Hono {
  const { catalogue, jobs, limits } = services;
  const drawingDraftOf = (fields: Readonly<Record<string, unknown>>) => {
    const settings = { ...fields };
    const files: Partial<Record<GivenName, Uint8Array>> = {};
    for (const name of givenNames) {
      const bytes = pictureBytes(fields[name], name);
      if (bytes) files[name] = bytes;
      delete settings[name];
    }
    delete settings["references"];
    const all = { ...files, references: referenceBytes(fields["references"]) };
    return draftOf(
      { fields: settings, files: all, fits: false, attached: false },
      catalogue,
      limits,
    );
  };
  const app = new Hono();
  app.route("/", pictureRoutes(services));
  app.route("/", trainingRoutes(services));
  app.get("/api/models", async (c) =>
    c.json<ModelList>({
      models: catalogue.models.map(({ info }) => info),
      loras: await catalogue.loraNames(),
      limits,
    }),
  );
  app.post("/api/jobs", async (c) => {
    const { kind = "draw", ...fields } = withoutNulls(await jsonBody(c));
    if (kind !== "draw" && kind !== "train") {
      throw new Problem(400, `kind must be draw or train, got ${JSON.stringify(kind)}.`, {
        param: "kind",
      });
    }
    const draft = await (kind === "train"
      ? trainingDraftOf({ kind, ...fields })
      : drawingDraftOf(fields));
    const job = jobs.asJob(await jobs.submit(draft));
    return c.json(job, 202, { Location: `/api/jobs/${job.id}` });
  });
  app.get("/api/jobs", async (c) => {
    const limit = Number(c.req.query("limit") ?? LISTED);
    if (!Number.isInteger(limit) || limit < 1) {
      throw new Problem(400, "limit must be a whole number of at least 1.", { param: "limit" });
    }
    return c.json({ jobs: (await jobs.list(limit)).map((each) => jobs.asJob(each)) });
  });
  app.get("/api/jobs/:id", async (c) => c.json(jobs.asJob(await jobs.get(c.req.param("id")))));
  app.delete("/api/jobs/:id", async (c) =>
    c.json(jobs.asJob(await jobs.cancel(c.req.param("id"))), 202),
  );
  app.get("/api/jobs/:id/events", async (c) => {
    const { log } = await jobs.get(c.req.param("id"));
    const after = eventNumber(c.req.header("last-event-id"));
    return streamSSE(c, async (stream) => {
      const gone = new AbortController();
      stream.onAbort(() => gone.abort());
      let isBeating = false;
      const beat = setInterval(() => {
        // A client that does not read gets no second one before it has read the first.
        if (isBeating) return;
        isBeating = true;
        void stream.write(": alive\n\n").then(() => (isBeating = false));
      }, HEARTBEAT);
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
  return app;
}

/** An invalid event number is ignored, so that the client receives all events. */
function eventNumber(text: string | undefined): number {
  const number = Number(text);
  return Number.isSafeInteger(number) && number > 0 ? number : 0;
}

function pictureRoutes({ jobs }: Services): Hono {
  const app = new Hono();
  app.get("/api/jobs/:id/pictures/:index", async (c) => {
    const entry = await jobs.drawing(c.req.param("id"));
    const { record } = entry;
    const index = c.req.param("index");
    const picture = /^\d+$/.test(index) ? record.pictures[Number(index)] : undefined;
    if (!picture) {
      throw new Problem(
        404,
        `The job has ${record.pictures.length} pictures; it is ${record.state}.`,
        { code: "picture_not_found" },
      );
    }
    return sent(c, picture.file, await jobs.read(entry, picture.file));
  });
  return app;
}

/** Routes that only trainings have. */
function trainingRoutes({ jobs }: Services): Hono {
  const app = new Hono();
  for (const action of ["pause", "resume", "sample"] as const) {
    app.post(`/api/jobs/:id/${action}`, async (c) =>
      c.json(jobs.asJob(await jobs[action](c.req.param("id"))), 202),
    );
  }
  app.get("/api/jobs/:id/samples/:file", async (c) => {
    const entry = await jobs.training(c.req.param("id"));
    const { record } = entry;
    const file = c.req.param("file");
    const known = record.samples.flatMap(({ step, count }) =>
      Array.from({ length: count }, (_, i) => sampleFile(step, i)),
    );
    if (!known.includes(file)) throw missing(file, known.length, "samples");
    return sent(c, file, await jobs.read(entry, `${trainingFolders.samples}/${file}`));
  });
  app.get("/api/jobs/:id/files/:file", async (c) => {
    const entry = await jobs.training(c.req.param("id"));
    const { record } = entry;
    const file = c.req.param("file");
    if (!record.files.includes(file)) throw missing(file, record.files.length, "files");
    return sent(c, file, await jobs.read(entry, `${trainingFolders.model}/${file}`));
  });
  return app;
}

function missing(file: string, count: number, what: string): Problem {
  return new Problem(
    404,
    `The training has no ${JSON.stringify(file)} among its ${count} ${what}.`,
    {
      code: "file_not_found",
    },
  );
}

/** A file that never changes. */
function sent(c: Context, name: string, bytes: Uint8Array<ArrayBuffer>): Response {
  return c.body(bytes, 200, {
    "Content-Type": mediaTypes[extname(name)] ?? "application/octet-stream",
    "Cache-Control": "private, max-age=31536000, immutable",
  });
}
