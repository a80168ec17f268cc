/** Requests of the page to the server that it came from. */
import type {
  AnyJob,
  ErrorBody,
  Job,
  JobEvent,
  JobRequest,
  ModelList,
  TrainingJob,
  TrainingRequest,
} from "../../../src/server/wire.ts";

/** True if the server takes jobs. It says so in the page; a static host says nothing. */
export const hasServer =
  document.querySelector<HTMLMetaElement>('meta[name="patchwise-jobs"]')?.content === "here";

const here = new URL("./", location.href);
/** The address of a path of the server, such as "/api/jobs". */
const at = (path: string) => new URL(path.replace(/^\//, ""), here);

async function answered(path: string, init: RequestInit = {}): Promise<Response> {
  const response = await fetch(at(path), init);
  if (response.ok) return response;
  const body = (await response.json().catch(() => undefined)) as ErrorBody | undefined;
  throw new Error(body?.error.message ?? `The server answered ${response.status} to ${path}.`);
}

const json = async <T>(path: string, init?: RequestInit) =>
  (await (await answered(path, init)).json()) as T;

export const modelList = () => json<ModelList>("/api/models");

/** Hands a job in. @throws Error with the server's sentence */
export function submit(body: JobRequest): Promise<Job>;
export function submit(body: TrainingRequest): Promise<TrainingJob>;
export function submit(body: JobRequest | TrainingRequest): Promise<AnyJob> {
  return json("/api/jobs", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
}

export async function cancelJob(id: string): Promise<void> {
  await answered(`/api/jobs/${id}`, { method: "DELETE" });
}

/** Asks for something of a training: "pause", "resume" or "sample". */
export async function askTraining(id: string, what: "pause" | "resume" | "sample"): Promise<void> {
  await answered(`/api/jobs/${id}/${what}`, { method: "POST" });
}

export const jobAt = (id: string) => json<AnyJob>(`/api/jobs/${id}`);

export async function fileAt(path: string): Promise<Blob> {
  return (await answered(path)).blob();
}

const finalStates: ReadonlySet<string> = new Set(["succeeded", "failed", "cancelled"]);

/**
 * Follows a job to its end; a connection that is lost is taken up again behind the last event.
 *
 * @throws Error if the server no longer knows the job
 */
export function follow<J extends AnyJob>(
  { id }: J,
  onEvent: (event: JobEvent<J>) => void,
): Promise<J> {
  return new Promise((resolve, reject) => {
    const source = new EventSource(at(`/api/jobs/${id}/events`));
    for (const kind of ["job", "progress", "preview", "sample", "note"]) {
      source.addEventListener(kind, ({ data }: MessageEvent<string>) => {
        const event = JSON.parse(data) as JobEvent<J>;
        onEvent(event);
        if (event.kind !== "job" || !finalStates.has(event.job.state)) return;
        source.close();
        resolve(event.job);
      });
    }
    source.addEventListener("error", () => {
      // It connects again by itself unless the server refused.
      if (source.readyState === EventSource.CLOSED) {
        reject(new Error("The server no longer knows this job, or cannot be reached."));
      }
    });
  });
}
