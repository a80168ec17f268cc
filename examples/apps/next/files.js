// Copies what the page loads by its address into public/.
import { cp } from "node:fs/promises";

await cp("node_modules/patchwise/models/emoji", "public/models/emoji", { recursive: true });
