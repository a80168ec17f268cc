/** `<patchwise-image prompt="a red heart">`: an element that draws its picture. */
import { PatchwiseError } from "../engine/errors.ts";
import { toImageData } from "../pictures/convert.ts";
import type { Picture } from "../pictures/picture.ts";
import type { GenerateRequest } from "../pipelines/settings.ts";
import { openInWorker, type OpenWorkerOptions } from "./client.ts";
import type { WorkerPipeline } from "./worker-pipeline.ts";

/** Attributes that are numbers of a request. */
const numbers = ["seed", "steps", "guidance", "width", "height"] as const;

/** Steps between the pictures that the element shows while it draws. */
const PREVIEW_EVERY = 4;

/**
 * Defines the element. Its attributes are `prompt` or `class`, `seed`, `steps`, `guidance`, `sampler`, `width` and `height`; `model`,
 * the address of a model's folder ("/models/emoji/" unless given); and `device`. Elements of one model share a worker. It fires
 * `progress`, `load` and `error`, whose `detail` is the step, the picture, or the error.
 *
 * Where there are no custom elements, as on a server that renders the page, it does nothing.
 *
 * @param name of the element; "patchwise-image" by default
 * @example defineImageElement({ wasmPaths: "/ort/" }); // <patchwise-image prompt="a red heart" seed="7"></patchwise-image>
 */
export function defineImageElement(
  options: OpenWorkerOptions = {},
  name = "patchwise-image",
): void {
  // Pages that a server renders are defined again in the browser.
  if (typeof customElements === "undefined" || customElements.get(name)) return;
  const pipelines = new Map<string, Promise<WorkerPipeline>>();
  const open = (model: string, device: OpenWorkerOptions["device"]) => {
    const key = `${device} ${model}`;
    const known =
      pipelines.get(key) ?? openInWorker(model, { ...options, ...(device && { device }) });
    pipelines.set(key, known);
    // A failed download is tried again by the next drawing.
    known.catch(() => pipelines.delete(key));
    return known;
  };
  customElements.define(name, imageElement(open));
}

type Open = (model: string, device: OpenWorkerOptions["device"]) => Promise<WorkerPipeline>;

/** Made on demand, since there is no `HTMLElement` in Node, where pages may be rendered. */
function imageElement(open: Open): CustomElementConstructor {
  return class PatchwiseImage extends HTMLElement {
    static readonly observedAttributes = [
      "prompt",
      "class",
      "sampler",
      "model",
      "device",
      ...numbers,
    ];
    readonly #canvas = document.createElement("canvas");
    #stopping: AbortController | undefined;

    constructor() {
      super();
      // A policy for content refuses elements of style that a script adds, but not sheets.
      const style = new CSSStyleSheet();
      style.replaceSync(
        ":host { display: inline-block } canvas { display: block; width: 100%; image-rendering: pixelated }",
      );
      const shadow = this.attachShadow({ mode: "open" });
      shadow.adoptedStyleSheets = [style];
      shadow.append(this.#canvas);
      this.#canvas.setAttribute("role", "img");
    }

    connectedCallback(): void {
      this.#redraw();
    }
    disconnectedCallback(): void {
      this.#stopping?.abort();
    }
    attributeChangedCallback(): void {
      if (this.isConnected) this.#redraw();
    }

    #redraw(): void {
      this.#stopping?.abort();
      const stopping = new AbortController();
      this.#stopping = stopping;
      this.#canvas.setAttribute("aria-label", this.getAttribute("prompt") ?? "");
      // Attributes that change together are one drawing.
      queueMicrotask(() => {
        if (stopping.signal.aborted) return;
        this.#draw(stopping.signal).catch((error: unknown) => {
          if (!stopping.signal.aborted) this.#tell("error", error);
        });
      });
    }

    async #draw(signal: AbortSignal): Promise<void> {
      const device = this.getAttribute("device") as OpenWorkerOptions["device"] | null;
      const model = this.getAttribute("model") ?? "/models/emoji/";
      const pipeline = await open(model, device ?? undefined);
      const generation = pipeline.generate({ ...requestOf(this), signal });
      for (;;) {
        const next = await generation.next();
        const [picture] = next.done
          ? next.value
          : next.value.step % PREVIEW_EVERY === 0
            ? await next.value.preview()
            : [];
        if (signal.aborted) return;
        if (picture) paint(this.#canvas, picture);
        if (next.done) {
          this.#tell("load", picture);
          return;
        }
        const { step, steps } = next.value;
        this.#tell("progress", { step, steps });
      }
    }

    #tell(event: string, detail: unknown): void {
      this.dispatchEvent(new CustomEvent(event, { detail }));
    }
  };
}

/** The settings that the attributes of an element give. */
function requestOf(element: HTMLElement): GenerateRequest {
  const text = (attribute: string) => element.getAttribute(attribute) ?? undefined;
  const given = numbers.map((each) => [each, text(each)] as const);
  const asked = given.filter(([, value]) => value !== undefined);
  return {
    prompt: text("prompt"),
    class: text("class"),
    sampler: text("sampler"),
    ...Object.fromEntries(asked.map(([each, value]) => [each, Number(value)])),
  };
}

function paint(canvas: HTMLCanvasElement, picture: Picture): void {
  canvas.width = picture.width;
  canvas.height = picture.height;
  const context = canvas.getContext("2d");
  if (!context)
    throw new PatchwiseError("The browser gives no canvas to draw on; close other pages.");
  context.putImageData(toImageData(picture), 0, 0);
}
