/** A map of shares on a canvas, one pixel for each. */
import { useLayoutEffect, useRef } from "preact/hooks";
import { colourOf, type Direction } from "./attention.ts";

interface HeatProps {
  readonly shares: Float32Array;
  readonly columns: number;
  readonly direction: Direction;
  /** The share that is shown brightest; the largest one unless given. */
  readonly most?: number;
  readonly label?: string;
}

export function Heat({ shares, columns, direction, most, label }: HeatProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const rows = Math.ceil(shares.length / columns);
  useLayoutEffect(() => {
    const context = canvas.current!.getContext("2d")!;
    const image = context.createImageData(columns, rows);
    const top = most ?? shares.reduce((a, b) => Math.max(a, b), 1e-9);
    for (const [i, share] of shares.entries()) {
      // The square root shows small shares, too.
      image.data.set([...colourOf(Math.sqrt(share / top), direction), 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
  }, [shares, columns, direction, most]);
  const spoken =
    label === undefined ? { "aria-hidden": true } : { role: "img" as const, "aria-label": label };
  return <canvas ref={canvas} width={columns} height={rows} class="pixels heat" {...spoken} />;
}
