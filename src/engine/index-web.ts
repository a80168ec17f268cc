/** The devices of the browser. */
export { type WebDevice, webDevices } from "./runtime/ort-session-web.ts";
export { webBackend, type WebBackendOptions } from "./runtime/ort-web.ts";
