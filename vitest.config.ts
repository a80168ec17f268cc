import { defineConfig } from "vitest/config";
import { typescript } from "./test/support/typescript.ts";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // ONNX Runtime is a native addon with threads of its own: a process a file keeps a crash or a leak in that file.
    pool: "forks",
    // Vitest takes the types off what it imports itself; worker threads of what is tested need that too.
    execArgv: typescript,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
