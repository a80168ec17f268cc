/** Errors as answers: OpenAI's shape, with a status that says whose fault it is. */
import {
  DeviceError,
  FormatError,
  PatchwiseError,
  ShapeError,
  UsageError,
} from "../engine/errors.ts";
import { QueueAwayError } from "../queue/link-node.ts";
import type { ErrorBody } from "./wire.ts";

type Status = 400 | 401 | 403 | 404 | 409 | 413 | 415 | 422 | 429 | 500 | 503;

interface ProblemOptions extends ErrorOptions {
  readonly code?: string;
  readonly param?: string;
  /** Seconds after which the request may be tried again. */
  readonly retryAfter?: number;
}

/** An error that is answered with a status of its own. */
export class Problem extends PatchwiseError {
  override readonly name = "Problem";
  readonly status: Status;
  readonly options: ProblemOptions;

  constructor(status: Status, message: string, options: ProblemOptions = {}) {
    super(message, options);
    this.status = status;
    this.options = options;
  }
}

/** The problem that an error is: what the request asks for and cannot have is its own fault, and everything else is the server's. */
export function problemOf(error: unknown): Problem {
  if (error instanceof Problem) return error;
  const { message } = error as Error;
  const isAsked = [UsageError, FormatError, ShapeError].some((type) => error instanceof type);
  if (isAsked) return new Problem(400, message, { cause: error });
  if ((error as NodeJS.ErrnoException).code === "ECONNRESET") {
    return new Problem(400, "The connection ended before the whole body had come.", {
      cause: error,
    });
  }
  if (error instanceof QueueAwayError) {
    return new Problem(503, message, { cause: error, code: "queue_away", retryAfter: 5 });
  }
  if (error instanceof DeviceError) return new Problem(503, message, { cause: error });
  if (error instanceof PatchwiseError) return new Problem(500, message, { cause: error });
  // What a bug says may name files, so it is for the log alone.
  return new Problem(500, "The server failed; its log says why.", { cause: error });
}

const types: Partial<Record<Status, ErrorBody["error"]["type"]>> = {
  429: "rate_limit_error",
  500: "server_error",
  503: "server_error",
};

export function errorBody({ status, message, options }: Problem): ErrorBody {
  const type = types[status] ?? "invalid_request_error";
  return {
    error: { message, type, code: options.code ?? null, param: options.param ?? null },
  };
}
