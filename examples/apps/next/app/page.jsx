"use client";
import { webBackend } from "patchwise/engine/web";
import { toImageData } from "patchwise/pictures";
import { finished, openPipelineUrl } from "patchwise/pipelines";
import { useRef, useState } from "react";

const backend = webBackend({ device: "wasm", worker: true });
let opening;

export default function Page() {
  const canvas = useRef(null);
  const [progress, setProgress] = useState(0);
  const [message, setMessage] = useState("");

  async function draw(fields) {
    setMessage("");
    try {
      const pipeline = await (opening ??= openPipelineUrl("/models/emoji/", { backend }));
      const onProgress = ({ step, steps }) => setProgress(step / steps);
      const [prompt, seed] = [fields.get("prompt"), Number(fields.get("seed"))];
      const [picture] = await finished(pipeline.generate({ prompt, seed, onProgress }));
      canvas.current.getContext("2d").putImageData(toImageData(picture), 0, 0);
      setMessage("done");
    } catch (error) {
      setMessage(error.message);
    }
  }

  const onSubmit = (event) => {
    event.preventDefault();
    void draw(new FormData(event.currentTarget));
  };
  return (
    <form onSubmit={onSubmit}>
      <input name="prompt" defaultValue="a red heart" aria-label="prompt" />
      <input name="seed" type="number" defaultValue="7" aria-label="seed" />
      <button>Draw</button>
      <progress value={progress} />
      <canvas ref={canvas} width="64" height="64" />
      <p id="message">{message}</p>
    </form>
  );
}
