/** The script of Web Workers that run programs with WebAssembly. */
import * as ort from "onnxruntime-web/wasm";
import { serveWebWorker } from "./ort-worker-web.ts";

serveWebWorker(ort);
