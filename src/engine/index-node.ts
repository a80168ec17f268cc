/** The devices that ONNX Runtime offers in Node. */
export { nodeBackend, type NodeBackendOptions } from "./runtime/ort-node.ts";
export { type DeviceName, type NodeDevice, nodeDevices } from "./runtime/ort-session-node.ts";
