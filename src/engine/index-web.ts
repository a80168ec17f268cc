/** The devices that ONNX Runtime offers in a browser. */
export { type WebDevice, webDevices } from "./runtime/ort-session-web.ts";
export {
  type StartWebWorker,
  webBackend,
  type WebBackendOptions,
  type WebFiles,
} from "./runtime/ort-web.ts";
