/** The script of the workers that `openInWorker` and `trainInWorker` start. */
import { type Channel, serve } from "./calls.ts";
import { webServices } from "./services.ts";

serve(globalThis as unknown as Channel, webServices());
