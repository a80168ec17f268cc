/** The brush that paints where a picture is drawn anew, with a mouse, a finger or keys. */
import { type RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { toImageData } from "../../../src/pictures/convert.ts";
import type { Picture } from "../../../src/pictures/picture.ts";
import { t } from "../language.ts";
import { Range } from "../parts/fields.tsx";
import { pictureOfCanvas } from "../parts/files.ts";

interface BrushProps {
  readonly image: Picture;
  /** What was painted before. */
  readonly mask: Picture | undefined;
  /** Called after each stroke with where the picture is drawn anew; undefined if nowhere. */
  readonly onMask: (mask: Picture | undefined) => void;
}

/** Paints a mask over a picture. */
export function Brush({ image, mask, onMask }: BrushProps) {
  const { width, height } = image;
  const [size, setSize] = useState(Math.round(width / 6));
  const above = useRef<HTMLCanvasElement>(null);
  const clear = () => {
    above.current!.getContext("2d")!.clearRect(0, 0, width, height);
    onMask(undefined);
  };
  return (
    <div class="brush">
      <BrushCanvas image={image} mask={mask} size={size} above={above} onMask={onMask} />
      <Range
        label={t("brush.size")}
        value={size}
        min={2}
        max={Math.round(width / 2)}
        onInput={setSize}
      />
      <button type="button" class="quiet" onClick={clear}>
        {t("brush.clear")}
      </button>
      <p class="hint" id="brush-hint">
        {t("brush.hint")}
      </p>
    </div>
  );
}

type Place = readonly [x: number, y: number];

/** Where the arrow keys move the brush. */
const arrows: Readonly<Record<string, Place>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

interface CanvasProps extends BrushProps {
  /** Width of the brush in pixels of the picture. */
  readonly size: number;
  readonly above: RefObject<HTMLCanvasElement | null>;
}

/** The picture, and above it what is painted. */
function BrushCanvas({ image, mask, size, above, onMask }: CanvasProps) {
  const { width, height } = image;
  const below = useRef<HTMLCanvasElement>(null);
  const last = useRef<Place | undefined>(undefined);
  /** Where keys paint, while the canvas has the focus of the keyboard. */
  const [cursor, setCursor] = useState<Place>();
  useEffect(() => {
    below.current!.getContext("2d")!.putImageData(toImageData(image), 0, 0);
    const context = above.current!.getContext("2d")!;
    context.clearRect(0, 0, width, height);
    if (mask) context.putImageData(strokesOf(mask), 0, 0);
  }, [image]);
  const stroke = (from: Place, to: Place) => paintLine(above.current!, size, from, to);
  const paint = (event: PointerEvent) => {
    const box = above.current!.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    const y = ((event.clientY - box.top) / box.height) * height;
    stroke(last.current ?? [x, y], [x, y]);
    last.current = [x, y];
  };
  const end = () => {
    if (!last.current) return;
    last.current = undefined;
    onMask(maskOf(above.current!));
  };
  const press = (event: KeyboardEvent) => {
    const arrow = arrows[event.key];
    if (!arrow && event.key !== " ") return;
    event.preventDefault();
    const at = cursor ?? [width / 2, height / 2];
    const [x, y] = at.map((each, i) => each + (arrow?.[i] ?? 0) * Math.max(1, size / 2));
    const next = [Math.min(width, Math.max(0, x!)), Math.min(height, Math.max(0, y!))] as const;
    setCursor(next);
    if (arrow && !event.shiftKey) return;
    stroke(at, next);
    onMask(maskOf(above.current!));
  };
  return (
    <div class="brush-canvas">
      <canvas ref={below} width={width} height={height} class="pixels" aria-hidden="true" />
      <canvas
        ref={above}
        width={width}
        height={height}
        class="pixels mask"
        role="application"
        tabIndex={0}
        aria-label={t("brush.canvas")}
        aria-describedby="brush-hint"
        onKeyDown={press}
        onBlur={() => setCursor(undefined)}
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          paint(event);
        }}
        onPointerMove={(event) => last.current && paint(event)}
        onPointerUp={end}
        onPointerCancel={end}
      />
      {cursor && (
        <i
          class="brush-cursor"
          style={{
            left: `${(100 * cursor[0]) / width}%`,
            top: `${(100 * cursor[1]) / height}%`,
            width: `${(100 * size) / width}%`,
          }}
        />
      )}
    </div>
  );
}

/** The colour of the brush. */
const ink = [255, 90, 30] as const;

function paintLine(canvas: HTMLCanvasElement, lineWidth: number, from: Place, [x, y]: Place): void {
  const context = canvas.getContext("2d")!;
  Object.assign(context, { lineWidth, lineCap: "round", strokeStyle: `rgb(${ink.join()})` });
  context.beginPath();
  context.moveTo(...from);
  // A line of no length paints nothing.
  context.lineTo(x + 0.01, y);
  context.stroke();
}

/** The strokes of a mask. */
function strokesOf({ width, height, pixels }: Picture): ImageData {
  const shown = new ImageData(width, height);
  for (const [i, value] of pixels.entries()) if (value > 0) shown.data.set([...ink, 255], 4 * i);
  return shown;
}

/** White where a canvas was painted on. */
function maskOf(canvas: HTMLCanvasElement): Picture {
  const { width, height } = canvas;
  const copy = new OffscreenCanvas(width, height);
  const context = copy.getContext("2d", { willReadFrequently: true })!;
  context.fillStyle = "white";
  context.drawImage(canvas, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "black";
  context.fillRect(0, 0, width, height);
  const { pixels } = pictureOfCanvas(context);
  const mask = Uint8Array.from({ length: width * height }, (_, i) =>
    pixels[3 * i]! > 127 ? 255 : 0,
  );
  return { width, height, channels: 1, pixels: mask };
}
