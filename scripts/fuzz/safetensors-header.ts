/** Damage to the header of a safetensors file, whose length stays right so that the damage is reached. */
import { joined } from "../../src/engine/bytes.ts";
import { jsonValues, type Mutation, textWords } from "./mutations.ts";

export const headerValues: Mutation = (random, input, other) => {
  const [own, others] = [split(input), split(other)];
  const change = random() < 0.7 ? jsonValues : textWords;
  const header = change(random, own.header, others.header);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(header.length), true);
  return joined([length, header, own.data]);
};

function split(file: Uint8Array): { readonly header: Uint8Array; readonly data: Uint8Array } {
  if (file.length < 8) return { header: new Uint8Array(0), data: file };
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  return { header: file.slice(8, 8 + length), data: file.slice(8 + length) };
}
