import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // ONNX Runtime is a native addon with threads of its own: a process a file keeps a crash or a leak in that file.
    pool: "forks",
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
