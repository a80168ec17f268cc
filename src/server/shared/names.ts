/** What the servers of one queue share, by name. */

export const jobBucket = "patchwise-serve-jobs";
export const fileBucket = "patchwise-serve-files";
export const workStream = "PATCHWISE-SERVE-WORK";
export const eventStream = "PATCHWISE-SERVE-EVENTS";

export const workSubjects = "patchwise-serve.work.*.*";
export const eventSubjects = "patchwise-serve.events.*.*";

/** A name as a token of a subject, which may have no dots, wildcards and slashes: others than letters, digits, "-" and "_" are written as =XX. */
function token(name: string): string {
  return name.replace(/[^\w-]/gu, (each) => `=${Buffer.from(each).toString("hex")}`);
}

/** The subject of a job that waits for a server with a model. */
export function workSubject(model: string, id = "*"): string {
  return `patchwise-serve.work.${token(model)}.${id}`;
}

/** Where servers that have a model of a digest answer. */
export function modelSubject(model: string, digest: string): string {
  return `patchwise-serve.model.${token(model)}.${digest}`;
}

/** The consumer of the jobs of a model, of which each goes to one of the servers that have the model. */
export function workConsumer(model: string): string {
  return `draw-${token(model)}`;
}

/** The subject of a job's events: those that are kept, or the last preview. */
export function eventSubject(id: string, part: "log" | "preview" | "*"): string {
  return `patchwise-serve.events.${id}.${part}`;
}
