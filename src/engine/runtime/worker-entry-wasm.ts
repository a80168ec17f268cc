/** The script of Web Workers that run programs with WebAssembly. */
import * as ort from "onnxruntime-web/wasm";
import { serveWebWorker } from "./worker-serve-web.ts";

serveWebWorker(ort);
