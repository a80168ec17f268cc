/** The picture that a drawing starts from, and the part of it that is drawn anew. */
import { useEffect, useRef, useState } from "preact/hooks";
import { toImageData } from "../../../src/pictures/convert.ts";
import type { Picture } from "../../../src/pictures/picture.ts";
import { t } from "../language.ts";
import { Range } from "../parts/fields.tsx";
import { pictureOfCanvas, pictureOfFile } from "../parts/files.ts";
import type { Settings } from "../settings.ts";

interface StartProps {
  readonly now: Settings;
  readonly set: (fields: Partial<Settings>) => void;
}

export function StartPicture({ now, set }: StartProps) {
  const input = useRef<HTMLInputElement>(null);
  const { image, strength, width, height } = now;
  const read = async (file: File | undefined) => {
    if (file) set({ image: await pictureOfFile(file, width, height), mask: undefined });
  };
  return (
    <details class="fold" open={image !== undefined}>
      <summary>{t("start.title")}</summary>
      <div class="fold-body">
        <p class="hint">{t("start.hint")}</p>
        <input
          ref={input}
          type="file"
          accept="image/*"
          class="visually-hidden"
          tabIndex={-1}
          aria-label={t("start.choose")}
          data-purpose="start"
          onChange={({ currentTarget }) => void read(currentTarget.files?.[0])}
        />
        <div class="actions">
          <button type="button" onClick={() => input.current?.click()}>
            {t("start.choose")}
          </button>
          {image && (
            <button type="button" onClick={() => set({ image: undefined, mask: undefined })}>
              {t("start.remove")}
            </button>
          )}
        </div>
        {image && (
          <>
            <Brush
              image={image}
              onMask={(mask) => set({ mask, ...(mask && !now.mask && { strength: 1 }) })}
            />
            <Range
              label={t("strength")}
              value={strength}
              min={0.05}
              max={1}
              step={0.05}
              shown={`${Math.round(100 * strength)} %`}
              hint={t("strength.hint")}
              onInput={(value) => set({ strength: value })}
            />
          </>
        )}
      </div>
    </details>
  );
}

interface BrushProps {
  readonly image: Picture;
  /** Called after each stroke with where the picture is drawn anew; undefined if nowhere. */
  readonly onMask: (mask: Picture | undefined) => void;
}

/** Paints a mask over a picture. */
function Brush({ image, onMask }: BrushProps) {
  const { width, height } = image;
  const [size, setSize] = useState(Math.round(width / 6));
  const below = useRef<HTMLCanvasElement>(null);
  const above = useRef<HTMLCanvasElement>(null);
  const last = useRef<readonly [number, number] | undefined>(undefined);
  useEffect(() => {
    below.current!.getContext("2d")!.putImageData(toImageData(image), 0, 0);
    above.current!.getContext("2d")!.clearRect(0, 0, width, height);
  }, [image]);
  const paint = (event: PointerEvent) => {
    const canvas = above.current!;
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    const y = ((event.clientY - box.top) / box.height) * height;
    const context = canvas.getContext("2d")!;
    Object.assign(context, { lineWidth: size, lineCap: "round", strokeStyle: "rgb(255 90 30)" });
    context.beginPath();
    context.moveTo(...(last.current ?? [x, y]));
    context.lineTo(x + 0.01, y);
    context.stroke();
    last.current = [x, y];
  };
  const end = () => {
    if (!last.current) return;
    last.current = undefined;
    onMask(maskOf(above.current!));
  };
  const clear = () => {
    above.current!.getContext("2d")!.clearRect(0, 0, width, height);
    onMask(undefined);
  };
  return (
    <div class="brush">
      <div class="brush-canvas">
        <canvas ref={below} width={width} height={height} class="pixels" aria-hidden="true" />
        <canvas
          ref={above}
          width={width}
          height={height}
          class="pixels mask"
          role="img"
          aria-label={t("brush.canvas")}
          onPointerDown={(event) => {
            event.currentTarget.setPointerCapture(event.pointerId);
            paint(event);
          }}
          onPointerMove={(event) => last.current && paint(event)}
          onPointerUp={end}
          onPointerCancel={end}
        />
      </div>
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
      <p class="hint">{t("brush.hint")}</p>
    </div>
  );
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
