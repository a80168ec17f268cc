/** The HTTP interfaces as one application: who may ask, how much, and what errors are answered with. */
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import type { Access } from "./access.ts";
import type { Catalogue } from "./catalogue.ts";
import type { JobTable } from "./jobs.ts";
import { metrics, type RequestCounter } from "./metrics.ts";
import { openApi } from "./openapi.ts";
import { pageRoutes } from "./page.ts";
import { errorBody, Problem, problemOf } from "./problem.ts";
import { nativeRoutes } from "./routes/jobs.ts";
import { openAiRoutes } from "./routes/openai.ts";
import { webUiRoutes } from "./routes/webui.ts";
import type { Limits } from "./wire.ts";

/** What the routes work with. */
export interface Services {
  readonly catalogue: Catalogue;
  readonly jobs: JobTable;
  readonly limits: Limits;
  readonly version: string;
}

export interface AppOptions extends Services {
  readonly access: Access;
  readonly requests: RequestCounter;
  readonly log: (text: string) => void;
  /** True if the studio's page is served too. */
  readonly page: boolean;
}

export function serverApp(options: AppOptions): Hono {
  const { access, requests, limits, log } = options;
  const app = new Hono();
  app.use(async (c, next) => {
    await next();
    requests.add(c.req.method, c.res.status);
  });
  app.onError((error, c) => {
    const problem = problemOf(error);
    // A problem says all in its sentence, which the client gets.
    if (problem.status === 500 && problem !== error) log(error.stack ?? error.message);
    return answer(c, problem);
  });
  app.notFound((c) =>
    answer(
      c,
      new Problem(404, `There is nothing at ${c.req.method} ${c.req.path}; see /openapi.json.`),
    ),
  );
  app.use((c, next) => {
    access.checkOrigin(c.req.header("host"), c.req.header("origin"));
    return next();
  });
  // Other pages of this machine may ask too; `checkOrigin` has refused all others.
  app.use(cors({ origin: (origin) => origin, exposeHeaders: ["Location", "Retry-After"] }));
  app.get("/healthz", (c) => c.json({ status: "ok" }));
  app.get("/readyz", (c) => {
    const reason = options.jobs.notReady();
    if (reason !== undefined) throw new Problem(503, reason, { retryAfter: 1 });
    return c.json({ status: "ready" });
  });
  app.use((c, next) => {
    access.checkToken(c.req.header("authorization"));
    return next();
  });
  app.use(
    bodyLimit({
      maxSize: limits.body,
      onError: () => {
        throw new Problem(
          413,
          `The body has more than ${limits.body} bytes, which is the most that this server reads; send a smaller picture.`,
        );
      },
    }),
  );
  app.get("/metrics", (c) => c.text(metrics(options.jobs, requests)));
  app.get("/openapi.json", (c) => c.json(openApi(options.version)));
  app.route("/", nativeRoutes(options));
  app.route("/", openAiRoutes(options));
  app.route("/", webUiRoutes(options));
  if (options.page) app.route("/", pageRoutes({ jobs: true }));
  return app;
}

function answer(c: Context, problem: Problem): Response {
  const { retryAfter } = problem.options;
  if (retryAfter !== undefined) c.header("Retry-After", String(retryAfter));
  // The rest of the body is not read, so the connection ends; a client must not send more by it.
  if (problem.status === 413) c.header("Connection", "close");
  if (problem.status === 401) c.header("WWW-Authenticate", 'Bearer realm="patchwise"');
  return c.json(errorBody(problem), problem.status);
}
