/** @type {import("next").NextConfig} */
export default {
  // Patchwise reads models and starts programs beside its code, so the server loads it from node_modules.
  serverExternalPackages: ["patchwise", "onnxruntime-node", "sharp"],
  outputFileTracingIncludes: {
    "/draw": [
      "node_modules/patchwise/models/emoji/**",
      "node_modules/patchwise/dist/**",
      "node_modules/onnxruntime-node/bin/napi-v6/linux/x64/**",
    ],
  },
  ...(process.env.STANDALONE && { output: "standalone" }),
};
