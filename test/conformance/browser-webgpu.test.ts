import { describeInBrowser } from "./browser.ts";
import { allCases } from "./cases/index.ts";

// WebGPU has no float64, and the software adapter no shader-f16.
describeInBrowser(
  "webgpu",
  allCases.filter((test) => !test.ieee754),
  ["float64", "float16"],
);
