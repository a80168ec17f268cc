import type sharp from "sharp";
import type { Metadata } from "sharp";

/** Loads sharp when a picture needs it: its native library takes a tenth of a second, which a drawn PNG need not wait for. */
export async function loadSharp(): Promise<typeof sharp> {
  return (await import("sharp")).default;
}

/** What the header of a picture file says. Rejects for bytes that are no picture, also for none, at which sharp itself throws. */
export async function pictureHeader(bytes: Uint8Array): Promise<Metadata> {
  return (await loadSharp())(bytes).metadata();
}
