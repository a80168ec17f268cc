import type sharp from "sharp";

/** Loads sharp when a picture needs it: its native library takes a tenth of a second, which a drawn PNG need not wait for. */
export async function loadSharp(): Promise<typeof sharp> {
  return (await import("sharp")).default;
}
