/** A picture on a canvas, each of its pixels a square. */
import { useLayoutEffect, useRef } from "preact/hooks";
import { toImageData } from "../../../src/pictures/convert.ts";
import type { Picture } from "../../../src/pictures/picture.ts";

interface PixelsProps {
  readonly picture: Picture;
  /** What a screen reader says; left out for pictures whose button says it. */
  readonly label?: string | undefined;
  readonly class?: string;
}

export function Pixels({ picture, label, class: name = "" }: PixelsProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { width, height } = picture;
  useLayoutEffect(() => {
    canvas.current!.getContext("2d")!.putImageData(toImageData(picture), 0, 0);
  }, [picture]);
  const spoken =
    label === undefined ? { "aria-hidden": true } : { role: "img" as const, "aria-label": label };
  return <canvas ref={canvas} width={width} height={height} class={`pixels ${name}`} {...spoken} />;
}
