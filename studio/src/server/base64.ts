/** Pictures as requests carry them. */
import { toBlob } from "../../../src/pictures/convert.ts";
import type { Picture } from "../../../src/pictures/picture.ts";

/** Base64 of a PNG file with the picture. */
export async function base64Of(picture: Picture): Promise<string> {
  const bytes = new Uint8Array(await (await toBlob(picture)).arrayBuffer());
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
