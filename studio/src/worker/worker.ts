/** The studio's worker: everything that computes runs here, so that the page never waits. */
import { type Channel, serve } from "../../../src/web/calls.ts";
import { webServices } from "../../../src/web/services.ts";
import { studioServices } from "./services.ts";

serve(globalThis as unknown as Channel, { ...webServices(), ...studioServices() });
