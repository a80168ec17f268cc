/** The pictures of a drawing, as they form and when they are done. */
import { useEffect, useState } from "preact/hooks";
import type { DrawnPicture } from "../../../src/pipelines/index.ts";
import type { Picture } from "../../../src/pictures/picture.ts";
import { type Drawing, drawingState } from "../drawing.ts";
import { helperWorker, model } from "../engine.ts";
import { deviceName, t } from "../language.ts";
import { download } from "../parts/files.ts";
import { Pixels } from "../parts/pixels.tsx";
import { hashOf, randomSeed, type Settings, settings } from "../settings.ts";
import { useStore } from "../store.ts";
import { show } from "../views.ts";

interface StageProps {
  readonly drawing: Drawing | undefined;
  readonly onAgain: (settings: Settings) => void;
}

export function Stage({ drawing, onAgain }: StageProps) {
  const { running, cancelled } = useStore(drawingState);
  const [step, setStep] = useState<number>();
  // A new drawing is shown from its newest step on.
  useEffect(() => setStep(undefined), [drawing?.id]);
  if (!drawing) return <EmptyStage />;
  const { asked, previews, pictures, resolved, files } = drawing;
  const moves = resolved.frames !== undefined && step === undefined;
  const last = previews.length;
  const shown: readonly Picture[] =
    step === undefined ? (pictures ?? previews.at(-1) ?? []) : previews[step]!;
  const percent = Math.round((100 * last) / resolved.steps);
  return (
    <div class="stage">
      <div class={`pictures of-${shown.length === 1 ? "one" : "many"}`}>
        {shown.map((picture, i) => {
          const label = t("picture.label", { prompt: asked.prompt, seed: resolved.seed + i });
          return files && moves ? (
            <Moving key={i} file={files[i]!} label={label} />
          ) : (
            <Pixels key={i} picture={picture} label={label} />
          );
        })}
      </div>
      <p class="progress-line" role="status">
        {running
          ? t("progress", { step: last, steps: resolved.steps, percent })
          : cancelled
            ? t("cancelled")
            : pictures && costOf(drawing)}
      </p>
      {resolved.warnings.map((each) => (
        <p key={each} class="warning" role="status">
          {each}
        </p>
      ))}
      <Film drawing={drawing} step={step} onStep={setStep} />
      {pictures && <PictureActions drawing={drawing} pictures={pictures} onAgain={onAgain} />}
    </div>
  );
}

/** A clip, which repeats. */
function Moving({ file, label }: { readonly file: Blob; readonly label: string }) {
  const [url, setUrl] = useState<string>();
  useEffect(() => {
    const made = URL.createObjectURL(file);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [file]);
  return url === undefined ? null : <img class="pixels" src={url} alt={label} />;
}

function costOf({ seconds, resolved, device, previews }: Drawing): string {
  return t("cost", {
    seconds: seconds.toFixed(1),
    each: Math.round((1000 * seconds) / Math.max(1, previews.length)),
    steps: previews.length,
    device: deviceName(device),
    seed: resolved.seed,
  });
}

function EmptyStage() {
  const { facts } = useStore(model);
  return (
    <div class="stage empty">
      <div class="empty-grid" aria-hidden="true">
        {Array.from({ length: 64 }, (_, i) => (
          <i
            key={i}
            style={{ "--d": Math.hypot((i % 8) - 3.5, Math.floor(i / 8) - 3.5).toFixed(2) }}
          />
        ))}
      </div>
      <p>{t("empty", { patches: facts?.patches ?? 64 })}</p>
    </div>
  );
}

interface FilmProps {
  readonly drawing: Drawing;
  readonly step: number | undefined;
  readonly onStep: (step: number | undefined) => void;
}

/** The estimate of every step. */
function Film({ drawing: { previews, pictures }, step, onStep }: FilmProps) {
  if (previews.length < 2) return null;
  return (
    <div class="film" role="group" aria-label={t("film")}>
      {previews.map(([picture], i) => (
        <button
          key={i}
          type="button"
          class="frame"
          aria-pressed={step === i}
          aria-label={t("film.step", { step: i + 1 })}
          onClick={() =>
            onStep(step === i || (pictures && i === previews.length - 1) ? undefined : i)
          }
        >
          <Pixels picture={picture!} />
        </button>
      ))}
    </div>
  );
}

interface ActionsProps {
  readonly drawing: Drawing;
  readonly pictures: readonly DrawnPicture[];
  readonly onAgain: (settings: Settings) => void;
}

function PictureActions({ drawing, pictures, onAgain }: ActionsProps) {
  const [told, setTold] = useState<string>();
  const { asked, resolved, files } = drawing;
  const [first] = pictures;
  const png = (picture: DrawnPicture) =>
    helperWorker().call("png", {
      picture,
      settings: resolved,
      seed: picture.seed,
      model: model.get().facts?.name ?? "",
    });
  const save = async () => {
    for (const [i, picture] of pictures.entries()) {
      // The server's files record their settings as well.
      const file = files?.[i] ?? new Blob([await png(picture)], { type: "image/png" });
      const name = `${nameOf(asked.prompt)}-${picture.seed}.${file.type.split("/")[1]}`;
      download(file, name, file.type);
    }
  };
  const copy = async () => {
    const blob = new Blob([await png(first!)], { type: "image/png" });
    await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    setTold(t("copied"));
  };
  const share = async () => {
    const url = new URL(hashOf("draw", asked), location.href).href;
    window.history.replaceState(null, "", url);
    await navigator.clipboard.writeText(url);
    setTold(t(asked.image ? "shared.without" : "shared"));
  };
  const vary = () => {
    const next = { ...settings.get(), seed: randomSeed() };
    settings.set(next);
    onAgain(next);
  };
  const attempt = (action: () => Promise<void>) => () => {
    action().catch((error: unknown) => setTold((error as Error).message));
  };
  return (
    <div class="picture-actions">
      <button type="button" class="accent" onClick={() => show("inside")}>
        {t("look.inside")}
      </button>
      <button type="button" onClick={vary}>
        {t("vary")}
      </button>
      <button
        type="button"
        onClick={() => settings.patch({ image: first, mask: undefined, strength: 0.6 })}
      >
        {t("start.from")}
      </button>
      <button type="button" onClick={attempt(save)}>
        {t("download")}
      </button>
      <button type="button" onClick={attempt(copy)}>
        {t("copy")}
      </button>
      <button type="button" onClick={attempt(share)}>
        {t("share")}
      </button>
      <span class="told" role="status">
        {told}
      </span>
    </div>
  );
}

/** A prompt as the name of a file. */
function nameOf(prompt: string): string {
  return (
    prompt
      .trim()
      .replace(/[^\p{L}\p{N}]+/gu, "-")
      .slice(0, 60) || "picture"
  );
}
