/** Arguments with which Node runs a TypeScript file of this repository itself, so that a signal reaches it. */
import path from "node:path";
import { pathToFileURL } from "node:url";

const hooks = pathToFileURL(
  path.resolve(import.meta.dirname, "../../scripts/typescript-hooks.mjs"),
);
const register = `import{register}from"node:module";register(${JSON.stringify(hooks.href)})`;

export const typescript = ["--import", `data:text/javascript,${encodeURIComponent(register)}`];
