import { webBackend } from "patchwise/engine/web";
import { toImageData } from "patchwise/pictures";
import { finished, openPipelineUrl } from "patchwise/pipelines";

const [form, canvas, progress, message] = ["form", "canvas", "progress", "#message"].map(
  (selector) => document.querySelector(selector),
);
const backend = webBackend({ device: "wasm", worker: true });
const opening = openPipelineUrl("models/emoji/", { backend });

async function draw({ prompt, seed }) {
  const pipeline = await opening;
  const onProgress = ({ step, steps }) => (progress.value = step / steps);
  const [picture] = await finished(pipeline.generate({ prompt, seed: Number(seed), onProgress }));
  canvas.getContext("2d").putImageData(toImageData(picture), 0, 0);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  message.textContent = "";
  draw(Object.fromEntries(new FormData(form))).then(
    () => (message.textContent = "done"),
    (error) => (message.textContent = error.message),
  );
});
