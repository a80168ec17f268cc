import { webBackend } from "patchwise/engine/web";
import { toImageData } from "patchwise/pictures";
import { openPipelineUrl } from "patchwise/pipelines";

const [form, canvas, progress, cancel, message] = [
  "form",
  "canvas",
  "progress",
  "#cancel",
  "#message",
].map((selector) => document.querySelector(selector));
const backend = webBackend({ device: "wasm", worker: true }); // or "webgpu"
const opening = openPipelineUrl("/models/emoji/", { backend });

function show([picture]) {
  canvas.getContext("2d").putImageData(toImageData(picture), 0, 0);
}

async function draw({ prompt, seed }, { signal }) {
  try {
    const pipeline = await opening;
    const drawing = pipeline.generate({ prompt, seed: Number(seed), signal });
    for (;;) {
      const { done, value } = await drawing.next();
      if (done) show(value);
      if (done) break;
      progress.value = value.step / value.steps;
      if (value.step % 5 === 0) show(await value.preview());
    }
    message.textContent = "done";
  } catch (error) {
    message.textContent = signal.aborted ? "cancelled" : error.message;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  message.textContent = "";
  const stopping = new AbortController();
  cancel.addEventListener("click", () => stopping.abort(), { once: true });
  void draw(Object.fromEntries(new FormData(form)), stopping);
});
