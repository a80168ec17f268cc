/** The interfaces in the form of OpenAPI 3.1. The settings are the rows of `pipelines/settings.ts`. */
import * as z from "zod";
import { generateRequestSchema } from "../pipelines/settings.ts";
import { besideSettings } from "./requests.ts";
import { trainingRequestSchema } from "./training-requests.ts";

interface Described {
  readonly properties: Readonly<Record<string, unknown>>;
}

export function openApi(version: string): object {
  return {
    openapi: "3.1.0",
    info: { title: "Patchwise", version },
    components: {
      schemas: {
        JobRequest: jobRequest(),
        TrainingRequest: trainingRequestSchema(),
        Error: errorAnswer,
      },
      securitySchemes: { token: { type: "http", scheme: "bearer" } },
    },
    security: [{}, { token: [] }],
    paths,
  };
}

/** The schema of a request: all settings, and fields of its own. */
function jobRequest(): object {
  const settings = generateRequestSchema() as Described;
  const beside = z.toJSONSchema(besideSettings) as Described;
  return {
    type: "object",
    properties: { ...settings.properties, ...beside.properties },
    additionalProperties: false,
  };
}

const errorAnswer = {
  type: "object",
  properties: {
    error: {
      type: "object",
      properties: {
        message: { type: "string" },
        type: { type: "string" },
        code: { type: ["string", "null"] },
        param: { type: ["string", "null"] },
      },
    },
  },
};

const ref = (name: string) => ({ $ref: `#/components/schemas/${name}` });
const operation = (summary: string, rest: object) => ({ summary, ...rest });
const body = (schema: object) => ({ required: true, content: { "application/json": { schema } } });
const json = (description: string, schema: object = {}) => ({
  description,
  content: { "application/json": { schema } },
});
const errors = { default: json("What is wrong, in a sentence", ref("Error")) };
const id = { name: "id", in: "path", required: true, schema: { type: "string" } };

const trainingPath = (summary: string) => ({
  parameters: [id],
  post: operation(summary, { responses: { 202: json("The job"), ...errors } }),
});
const filePath = (summary: string) => ({
  parameters: [id, { name: "file", in: "path", required: true, schema: { type: "string" } }],
  get: operation(summary, { responses: { 200: { description: "The file" }, ...errors } }),
});

const paths = {
  "/api/jobs": {
    post: operation("Accept a drawing, or a training, whose kind is train", {
      requestBody: body({ anyOf: [ref("JobRequest"), ref("TrainingRequest")] }),
      responses: {
        202: json("The job"),
        429: json("The queue is full", ref("Error")),
        ...errors,
      },
    }),
    get: operation("List jobs, the newest first", {
      parameters: [{ name: "limit", in: "query", schema: { type: "integer", minimum: 1 } }],
      responses: { 200: json("Jobs"), ...errors },
    }),
  },
  "/api/jobs/{id}": {
    parameters: [id],
    get: operation("A job", { responses: { 200: json("The job"), ...errors } }),
    delete: operation("Cancel a job, or remove a training that is over", {
      responses: { 202: json("The job"), ...errors },
    }),
  },
  "/api/jobs/{id}/events": {
    parameters: [id, { name: "Last-Event-ID", in: "header", schema: { type: "integer" } }],
    get: operation("Follow a job: events named job, progress, preview, sample and note", {
      responses: {
        200: { description: "Events", content: { "text/event-stream": {} } },
        ...errors,
      },
    }),
  },
  "/api/jobs/{id}/pictures/{index}": {
    parameters: [
      id,
      { name: "index", in: "path", required: true, schema: { type: "integer", minimum: 0 } },
    ],
    get: operation("A picture of a job", {
      responses: { 200: { description: "The file", content: { "image/*": {} } }, ...errors },
    }),
  },
  "/api/jobs/{id}/pause": trainingPath("Stop a training until it is resumed"),
  "/api/jobs/{id}/resume": trainingPath("Go on with a training"),
  "/api/jobs/{id}/sample": trainingPath("Draw samples of a training after its current step"),
  "/api/jobs/{id}/samples/{file}": filePath("A sample of a training"),
  "/api/jobs/{id}/files/{file}": filePath("A file of the model of a training"),
  "/api/models": {
    get: operation("Models, LoRAs and limits", {
      responses: { 200: json("Models"), ...errors },
    }),
  },
  "/v1/models": {
    get: operation("Models, as OpenAI's API lists them", {
      responses: { 200: json("Models"), ...errors },
    }),
  },
  "/v1/images/generations": {
    post: operation("Draw, as in OpenAI's API, with any setting beside its fields", {
      requestBody: body({ type: "object" }),
      responses: { 200: json("Pictures"), ...errors },
    }),
  },
  "/v1/images/edits": {
    post: operation("Draw from a picture, as in OpenAI's API", {
      requestBody: { required: true, content: { "multipart/form-data": {} } },
      responses: { 200: json("Pictures"), ...errors },
    }),
  },
};
