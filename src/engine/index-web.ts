/** The devices that ONNX Runtime offers in a browser. */
export { type WebDevice, webDevices } from "./runtime/ort-session-web.ts";
export { webBackend, type WebBackendOptions } from "./runtime/ort-web.ts";
