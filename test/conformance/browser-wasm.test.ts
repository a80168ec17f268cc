import { describeInBrowser } from "./browser.ts";
import { allCases } from "./cases/index.ts";

describeInBrowser("wasm", allCases);
