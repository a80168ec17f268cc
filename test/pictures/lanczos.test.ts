import { describe, expect, it } from "vitest";
import { centerCropped, resizedByLanczos } from "../../src/pictures/lanczos.ts";
import type { Picture } from "../../src/pictures/picture.ts";

function pattern(width: number, height: number): Picture {
  const pixels = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) {
        pixels[3 * (y * width + x) + c] = x * 37 + y * 101 + c * 53 + ((x * y) % 7) * 29;
      }
    }
  }
  return { width, height, channels: 3, pixels };
}

describe("resizedByLanczos", () => {
  // Recorded with Pillow 12.3: Image.frombytes("RGB", …).resize(…, Image.Resampling.LANCZOS).tobytes().hex()
  it.each([
    [
      [9, 7],
      [5, 4],
      "4d7874756a9a85cbb6c7663f4b6c7f75c16a915a888f618b7c5c8f7b786e7d8f85a483787670be8b8c6181a8488d7f7b64a2814582c055699a89857e",
    ],
    [
      [4, 5],
      [7, 9],
      "002b51002f6d0f429d1c6cbb3994c76aa7d885aae00e4099225f824d87647771687959935e7fbd489fd14b79e763ae959adb1ee67b0dd21a5c604490107aa6bfe29b96da7570ad49b27f69e35c969f4383643c6be0ff2c94c647316287348ee794b9ead45587ef063b6a955078a33e7aa6432ebfa92f95d0b82566ff00111d52bf5d9278a7da1e6cae403c458897216ee2204b72a2f45fa5c75795738c5047be3670b371af9da4c9bee9ff66b7f4165cb6981160ff3a6dcbaadc74f5ff",
    ],
    [[12, 3], [3, 3], "4681ac8881825380868a8475a28c6e8e7a7f9494959145838f70a3"],
  ] as const)("%j → %j is as Pillow has it", ([w, h], [width, height], hex) => {
    const resized = resizedByLanczos(pattern(w, h), { width, height });
    expect(resized).toMatchObject({ width, height, channels: 3 });
    expect(Buffer.from(resized.pixels).toString("hex")).toBe(hex);
  });
});

it("centerCropped leaves an odd row and column at the right and below", () => {
  const pixels = Uint8Array.from({ length: 20 }, (_, i) => i);
  const cropped = centerCropped(
    { width: 5, height: 4, channels: 1, pixels },
    { width: 2, height: 3 },
  );
  expect([...cropped.pixels]).toEqual([1, 2, 6, 7, 11, 12]);
});
