// Copies what the page loads into site/, which any server of static files serves as it is.
import { cp } from "node:fs/promises";

const recursive = { recursive: true };
const wasm = "ort-wasm-simd-threaded.wasm"; // for the device webgpu: ort-wasm-simd-threaded.asyncify.wasm
await cp("node_modules/patchwise/dist/web", "site/patchwise", recursive);
await cp(`node_modules/onnxruntime-web/dist/${wasm}`, `site/patchwise/${wasm}`);
await cp("node_modules/patchwise/models/emoji", "site/models/emoji", recursive);
