/**
 * Which servers of a queue have the model of a job. Two of one name may differ, and draw different pictures; so a job is drawn with
 * the model of the server that accepted it, and others that have the same answer for it.
 */
import { quote, UsageError } from "../../engine/errors.ts";
import type { Queue } from "../../queue/connection-node.ts";
import { modelSubject } from "./names.ts";
import type { SharedJob } from "./store.ts";

export interface SharedModels {
  readonly names: readonly string[];
  /** The digest of a model that this server has. */
  digest(name: string): string;
  /** @throws UsageError if this server's model differs from the job's */
  requireSame(job: SharedJob): void;
  /** Resolves to true if this server's model differs from the job's, and another one that takes jobs has it. */
  isElsewhere(job: SharedJob): Promise<boolean>;
  /** Answers no more. */
  close(): void;
}

/** Milliseconds for an answer of another server. */
const ANSWER = 2000;

/** @param digests what the pictures of each model depend on, by the names of the models */
export function sharedModels(queue: Queue, digests: ReadonlyMap<string, string>): SharedModels {
  const { connection, modules } = queue;
  const answers = [...digests].map(([name, digest]) =>
    connection.subscribe(modelSubject(name, digest), {
      callback: (_error, message) => void message.respond(),
    }),
  );
  return {
    names: [...digests.keys()],
    digest: (name) => digests.get(name)!,
    requireSame({ record: { model }, digest }) {
      if (digests.get(model) === digest) return;
      throw new UsageError(
        `${quote(model)} has other weights or another config here than on the server that accepted the job; give all servers of the queue the same model, and send the job again.`,
      );
    },
    async isElsewhere({ record: { model }, digest }) {
      if (digests.get(model) === digest) return false;
      try {
        await connection.request(modelSubject(model, digest), "", { timeout: ANSWER });
        return true;
      } catch (error) {
        // Without an answer for another reason, it is not known.
        return !(error instanceof modules.transport.errors.RequestError && error.isNoResponders());
      }
    },
    close: () => {
      for (const each of answers) each.unsubscribe();
    },
  };
}
