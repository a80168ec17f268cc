/**
 * OpenAI's interface for images (https://platform.openai.com/docs/api-reference/images), with every setting of Patchwise beside its
 * own fields.
 */
import { type Context, Hono } from "hono";
import { streamSSE } from "hono/streaming";
import * as z from "zod";
import { tryJson } from "../../engine/bytes.ts";
import { takesReferences } from "../../pipelines/references.ts";
import { settingNames, settingRow } from "../../pipelines/settings.ts";
import type { Services } from "../app.ts";
import { jsonBody, withoutNulls } from "../body.ts";
import { type DrawRecord, givenNames } from "../job-store.ts";
import { isOver } from "../job-view.ts";
import type { Entry } from "../jobs.ts";
import { errorBody, Problem, problemOf } from "../problem.ts";
import { draftOf, requireFewReferences, type RequestOptions } from "../requests.ts";
import { type OutputFormat, outputFormats } from "../wire.ts";

/** The fields of OpenAI's API that are no settings here. Where only one value has a meaning, others are refused. */
const ownFields = z.object({
  model: z.string().optional(),
  output_format: z.enum(outputFormats).default("png"),
  response_format: z.enum(["b64_json", "url"]).default("b64_json"),
  stream: z.boolean().default(false),
  partial_images: z.int().min(0).max(3).default(0),
  /** The number of steps is what quality depends on here. */
  quality: z.enum(["auto", "standard"]).optional(),
  background: z.enum(["auto", "opaque"]).optional(),
  /** There is none, which is the least. */
  moderation: z.enum(["auto", "low"]).optional(),
  /** The name of the caller's own user, which is not kept. */
  user: z.string().optional(),
});

type OwnFields = z.output<typeof ownFields>;

export function openAiRoutes(services: Services): Hono {
  const { catalogue } = services;
  const app = new Hono();
  const modelOf = (name: string) => ({
    id: name,
    object: "model",
    created: 0,
    owned_by: "patchwise",
  });
  app.get("/v1/models", (c) =>
    c.json({ object: "list", data: catalogue.models.map(({ name }) => modelOf(name)) }),
  );
  // Names on the Hub hold a slash.
  app.get("/v1/models/:name{.+}", (c) =>
    c.json(modelOf(catalogue.model(c.req.param("name")).name)),
  );
  app.post("/v1/images/generations", async (c) => {
    const fields = withoutNulls(await jsonBody(c));
    for (const name of [...givenNames, "references"]) {
      if (fields[name] === undefined) continue;
      const place = name === "lastImage" || name === "extend" ? "/api/jobs" : "/v1/images/edits";
      throw new Problem(400, `${name} is a field of ${place}; send the request there.`, {
        param: name,
      });
    }
    return draw(c, services, "image_generation", { fields, files: {} });
  });
  app.post("/v1/images/edits", async (c) => {
    const form = await formBody(c);
    const { model } = catalogue.model(form.fields["model"] as string | undefined);
    const files = editedFiles(form, takesReferences(model));
    return draw(c, services, "image_edit", { fields: form.fields, files });
  });
  return app;
}

type Given = Pick<RequestOptions, "fields" | "files">;

async function draw(
  c: Context,
  { catalogue, jobs, limits }: Services,
  kind: "image_generation" | "image_edit",
  { fields, files }: Given,
): Promise<Response> {
  const own = ownFields.safeParse(fields);
  if (!own.success) {
    const { path, message } = own.error.issues[0]!;
    throw new Problem(400, `${path.join(".")} is not as expected: ${message}.`, {
      param: path.join("."),
    });
  }
  const { model, stream, partial_images: previews, output_format: outputFormat } = own.data;
  const settings = Object.fromEntries(
    Object.entries(fields).filter(
      ([name, value]) =>
        !Object.hasOwn(ownFields.shape, name) && !(name === "size" && value === "auto"),
    ),
  );
  const draft = await draftOf(
    {
      fields: {
        ...settings,
        outputFormat,
        ...(model !== undefined && { model }),
        ...(stream && { previews }),
      },
      files,
      fits: true,
      attached: true,
    },
    catalogue,
    limits,
  );
  const { id } = (await jobs.submit(draft)).record;
  if (stream) return streamed(c, jobs, await jobs.drawing(id), kind);
  await jobs.ended(id, c.req.raw.signal);
  return c.json(await pictures(await jobs.drawing(id), own.data, jobs, new URL(c.req.url).origin));
}

async function pictures(
  entry: Entry<DrawRecord>,
  own: OwnFields,
  jobs: Services["jobs"],
  origin: string,
): Promise<object> {
  const { record } = entry;
  if (record.state !== "succeeded") throw failed(record);
  const data: object[] = [];
  for (const [i, { file, seed }] of record.pictures.entries()) {
    const shown =
      own.response_format === "url"
        ? { url: `${origin}/api/jobs/${record.id}/pictures/${i}` }
        : { b64_json: base64(await jobs.read(entry, file)) };
    data.push({ ...shown, seed });
  }
  return { ...described(record.settings, own.output_format), created: seconds(), data };
}

function failed({ state, error }: DrawRecord): Problem {
  return new Problem(500, error ?? `The job was ${state}.`);
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
const seconds = () => Math.floor(Date.now() / 1000);

function described({ width, height }: DrawRecord["settings"], outputFormat: OutputFormat) {
  return {
    background: "opaque",
    output_format: outputFormat,
    quality: "auto",
    size: `${width}x${height}`,
  };
}

/** The job as OpenAI's events: partial pictures, and each picture once it is complete. */
function streamed(
  c: Context,
  jobs: Services["jobs"],
  { record, log }: Entry<DrawRecord>,
  kind: "image_generation" | "image_edit",
): Response {
  const { id, settings, outputFormat } = record;
  return streamSSE(c, async (stream) => {
    const gone = new AbortController();
    stream.onAbort(() => {
      gone.abort();
      void jobs.cancel(id).catch(() => undefined);
    });
    const send = (event: string, data: object) =>
      stream.writeSSE({ event, data: JSON.stringify({ type: event, ...data }) });
    try {
      let index = 0;
      for await (const { event } of log.follow(0, gone.signal)) {
        if (event.kind === "preview") {
          for (const b64_json of event.pictures) {
            await send(`${kind}.partial_image`, {
              b64_json,
              created_at: seconds(),
              partial_image_index: index,
              // Previews are PNG files, whatever the pictures are.
              ...described(settings, "png"),
            });
          }
          index++;
        }
        if (event.kind !== "job" || !isOver(event.job)) continue;
        const ended = await jobs.drawing(id);
        const { record: done } = ended;
        if (done.state !== "succeeded") throw failed(done);
        for (const { file, seed } of done.pictures) {
          await send(`${kind}.completed`, {
            b64_json: base64(await jobs.read(ended, file)),
            created_at: seconds(),
            seed,
            ...described(settings, outputFormat),
            usage: unmetered,
          });
        }
      }
    } catch (error) {
      await stream.writeSSE({ event: "error", data: JSON.stringify(errorBody(problemOf(error))) });
    }
  });
}

/** Clients read this field. Nothing is counted in tokens here. */
const unmetered = {
  input_tokens: 0,
  input_tokens_details: { image_tokens: 0, text_tokens: 0 },
  output_tokens: 0,
  total_tokens: 0,
};

/** Settings whose value is a text, by all of their names; forms have texts only. */
const textFields = new Set([
  ...settingNames
    .filter((name) => settingRow(name).type.safeParse("text").success)
    .flatMap((name) => [name, ...(settingRow(name).aliases ?? [])]),
  "model",
  "size",
  "user",
  "quality",
  "background",
  "moderation",
]);

/** What may be edited with, by the name of the field. */
const fileFields = ["image", "mask", "references"] as const;
type FileField = (typeof fileFields)[number];

interface Form extends Pick<Given, "fields"> {
  readonly files: Readonly<Record<FileField, readonly Uint8Array[]>>;
}

/**
 * The files of a form as a drawing takes them. A model that takes reference pictures sees the images as such, as OpenAI's models do, unless
 * a mask or a strength says that one of them is drawn anew.
 *
 * @throws Problem if there are several where one is taken, or none
 */
function editedFiles({ fields, files }: Form, takes: boolean): Given["files"] {
  const { image: images, mask: masks, references } = files;
  if (images.length + references.length === 0) throw missingImage();
  if (takes && masks.length === 0 && fields["strength"] === undefined) {
    const all = [...images, ...references];
    requireFewReferences(all.length);
    return { references: all };
  }
  requireFewReferences(references.length);
  const instead = takes
    ? "send one, and the others as references"
    : "send one, or draw with a model that takes reference pictures";
  const image = onlyOne(images, "image", instead);
  const mask = onlyOne(masks, "mask", "send one");
  if (!image) throw missingImage();
  return { image, ...(mask && { mask }), ...(references.length > 0 && { references }) };
}

function onlyOne([first, ...rest]: readonly Uint8Array[], param: FileField, instead: string) {
  if (rest.length === 0) return first;
  throw new Problem(
    400,
    `There are ${rest.length + 1} files as ${param}, but this edit takes one; ${instead}.`,
    { param },
  );
}

function missingImage(): Problem {
  return new Problem(400, "image is missing; send a picture file.", { param: "image" });
}

/** @throws Problem unless the body is a form, of whose files each is a picture to edit with */
async function formBody(c: Context): Promise<Form> {
  const type = c.req.header("content-type") ?? "";
  if (!/^multipart\/form-data\b/i.test(type)) {
    throw new Problem(
      415,
      `The body is of the type ${JSON.stringify(type)}; send multipart/form-data.`,
    );
  }
  const form = await c.req.formData().catch((cause: unknown) => {
    throw new Problem(400, "The form in the body is damaged; send it again.", { cause });
  });
  // Without a prototype, a field of any name is only a field.
  const fields = Object.create(null) as Record<string, unknown>;
  const files: Record<FileField, Uint8Array[]> = { image: [], mask: [], references: [] };
  for (const [spelled, value] of form) {
    const name = spelled.replace(/\[\]$/, "");
    const place = fileFields.find((each) => each === name);
    if (place) {
      if (typeof value === "string") {
        throw new Problem(400, `${name} must be a picture file.`, { param: name });
      }
      files[place].push(new Uint8Array(await value.arrayBuffer()));
    } else if (typeof value !== "string") {
      throw new Problem(400, `${name} must be a text, not a file.`, { param: name });
    } else {
      fields[name] = textFields.has(name) ? value : (tryJson(value) ?? value);
    }
  }
  return { fields, files };
}
