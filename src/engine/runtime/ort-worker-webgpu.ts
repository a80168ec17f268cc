/** The script of Web Workers that run programs with WebGPU. */
import * as ort from "onnxruntime-web/webgpu";
import { serveWebWorker } from "./ort-worker-web.ts";

serveWebWorker(ort);
