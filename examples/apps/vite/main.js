import { webBackend } from "patchwise/engine/web";
import { toImageData } from "patchwise/pictures";
import { openPipelineUrl } from "patchwise/pipelines";

const find = (selector) => document.querySelector(selector);
const show = ([picture]) =>
  find("canvas").getContext("2d").putImageData(toImageData(picture), 0, 0);
const backend = webBackend({ device: "wasm", worker: true }); // or "webgpu"
const opening = openPipelineUrl("/models/emoji/", { backend });

find("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  find("#message").textContent = "";
  const { prompt, seed } = Object.fromEntries(new FormData(event.target));
  const stop = new AbortController();
  find("#cancel").addEventListener("click", () => stop.abort(), { once: true });
  try {
    const drawing = (await opening).generate({ prompt, seed: Number(seed), signal: stop.signal });
    for (let next = await drawing.next(); ; next = await drawing.next()) {
      show(next.done ? next.value : await next.value.preview());
      if (next.done) break;
      find("progress").value = next.value.step / next.value.steps;
    }
    find("#message").textContent = "done";
  } catch (error) {
    find("#message").textContent = stop.signal.aborted ? "cancelled" : error.message;
  }
});
