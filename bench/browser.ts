/**
 * `npm run bench -- browser [--json]`: a forward pass of DiT-S/2-shaped networks in headless Chromium in float32 and with products of 8-bit
 * integers, in one thread of WebAssembly; runs of the two alternate. WebGPU runs on the adapter of this machine, which is usually a
 * software adapter, so that its times say nothing of a GPU.
 */
import { openPage } from "../test/support/browser.ts";
import type * as pageModule from "./browser-page.ts";
import type { BrowserTimes, BrowserWork } from "./browser-page.ts";

const small = { threads: 1, depth: 12, hidden: 384, side: 32 } as const;

const works: readonly BrowserWork[] = [
  { ...small, device: "wasm", rows: 1, rounds: 7 },
  { ...small, device: "wasm", rows: 4, rounds: 5 },
  { ...small, device: "wasm", hidden: 256, side: 16, depth: 6, rows: 1, rounds: 15 },
  { ...small, device: "webgpu", hidden: 128, side: 8, depth: 2, rows: 1, rounds: 2 },
];

export interface BrowserRow extends BrowserWork {
  /** The least milliseconds of a run. */
  readonly float32: number;
  readonly int8: number;
  readonly error: number;
}

export async function benchBrowser(report: (line: string) => void): Promise<readonly BrowserRow[]> {
  const rows: BrowserRow[] = [];
  for (const work of works) {
    const page = await openPage<typeof pageModule>("bench/browser-page.ts");
    try {
      const times: BrowserTimes = await page.call("timed", work);
      report(JSON.stringify({ ...work, ...times }));
      const { float32, int8, error } = times;
      rows.push({ ...work, float32: Math.min(...float32), int8: Math.min(...int8), error });
    } finally {
      await page.close();
    }
  }
  return rows;
}

export function browserTable(rows: readonly BrowserRow[]): string {
  const lines = rows.map(({ device, depth, hidden, side, rows: count, float32, int8, error }) => {
    const cells = [
      device,
      `${depth} × ${hidden}`,
      (side / 2) ** 2,
      count,
      float32.toFixed(0),
      int8.toFixed(0),
    ];
    return `| ${[...cells, (float32 / int8).toFixed(2), `${(100 * error).toFixed(2)} %`].join(" | ")} |`;
  });
  return [
    "| device | blocks × width | tokens | pictures | float32, ms | int8, ms | ratio | relative error |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ...lines,
  ].join("\n");
}
