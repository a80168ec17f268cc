/** The way from noise to picture: the film of the steps, what is in one of them, and curves over all. */
import { t } from "../language.ts";
import { Pixels } from "../parts/pixels.tsx";
import type { Picture } from "../../../src/pictures/picture.ts";
import type { Look } from "./looks.ts";

interface FilmProps {
  readonly looks: readonly (Look | undefined)[];
  /** Estimates, which are known before a step is looked into. */
  readonly previews: readonly (readonly Picture[])[];
  readonly picture: number;
  readonly step: number;
  readonly playing: boolean;
  readonly onStep: (step: number) => void;
  readonly onPlay: () => void;
}

export function FilmStrip({ looks, previews, picture, step, playing, onStep, onPlay }: FilmProps) {
  const look = looks[step];
  const last = previews.length - 1;
  return (
    <div class="film-strip">
      <div class="film-head">
        <button
          type="button"
          class="round"
          aria-label={t(playing ? "pause" : "play")}
          onClick={onPlay}
        >
          <span aria-hidden="true">{playing ? "❚❚" : "▶"}</span>
        </button>
        <label class="film-slider">
          <span class="visually-hidden">{t("steps")}</span>
          <input
            type="range"
            min={0}
            max={last}
            value={step}
            aria-valuetext={t("film.step", { step: step + 1 })}
            style={{ "--share": `${(100 * step) / Math.max(1, last)}%` }}
            onInput={({ currentTarget }) => onStep(Number(currentTarget.value))}
          />
        </label>
        <output>
          {t("inside.step", { step: step + 1, steps: last + 1 })}
          {look && ` · σ ${look.sigma.toFixed(2)}`}
        </output>
      </div>
      <div class="frames" aria-hidden="true">
        {previews.map((each, i) => (
          <div
            key={i}
            class={`pair-frame${i === step ? " current" : ""}`}
            onClick={() => onStep(i)}
          >
            <Begun look={looks[i]} />
            <Pixels picture={each[picture]!} />
          </div>
        ))}
      </div>
    </div>
  );
}

function Begun({ look }: { readonly look: Look | undefined }) {
  return look ? <Pixels picture={look.x} /> : <span class="pending" />;
}

export function StepTiles({ look }: { readonly look: Look }) {
  const tiles = [
    [look.x, "inside.x", "inside.x.hint"],
    [look.x0, "inside.x0", "inside.x0.hint"],
    [look.velocity, "inside.velocity", "inside.velocity.hint"],
  ] as const;
  return (
    <div class="tiles">
      {tiles.map(([picture, title, hint]) => (
        <figure key={title}>
          <Pixels picture={picture} label={t(title)} />
          <figcaption>
            <strong>{t(title)}</strong>
            {t(hint)}
          </figcaption>
        </figure>
      ))}
    </div>
  );
}

/** Noise level and speed over the steps. */
export function Curves({
  looks,
  step,
}: {
  readonly looks: readonly (Look | undefined)[];
  readonly step: number;
}) {
  const known = looks.flatMap((look, i) => (look ? [[i, look] as const] : []));
  if (known.length < 2) return null;
  const rows = [
    { name: t("inside.sigma"), value: (look: Look) => look.sigma, hue: "noise" },
    { name: t("inside.speed"), value: (look: Look) => look.speed, hue: "speed" },
    { name: t("inside.apart"), value: (look: Look) => look.apart, hue: "apart" },
  ];
  const now = looks[step];
  return (
    <dl class="curves">
      {rows.map(({ name, value, hue }) => {
        const most = Math.max(...known.map(([, look]) => value(look)), 1e-6);
        const x = (i: number) => (100 * i) / Math.max(1, looks.length - 1);
        const points = known.map(([i, look]) => `${x(i)},${30 - (27 * value(look)) / most}`);
        return (
          <div key={hue} class={hue}>
            <dt>{name}</dt>
            <dd>
              {now && value(now).toFixed(3)}
              <svg viewBox="-2 0 104 32" preserveAspectRatio="none" aria-hidden="true">
                <polyline points={points.join(" ")} />
                {now && <line x1={x(step)} x2={x(step)} y1="0" y2="32" />}
              </svg>
            </dd>
          </div>
        );
      })}
    </dl>
  );
}

export function GuidanceTiles({
  look,
  guidance,
}: {
  readonly look: Look;
  readonly guidance: number;
}) {
  if (!look.unconditional || !look.difference) return <p class="hint">{t("inside.unguided")}</p>;
  const tiles = [
    [look.conditional, "inside.conditional"],
    [look.unconditional, "inside.unconditional"],
    [look.difference, "inside.difference"],
  ] as const;
  return (
    <>
      <div class="tiles">
        {tiles.map(([picture, title]) => (
          <figure key={title}>
            <Pixels picture={picture} label={t(title)} />
            <figcaption>
              <strong>{t(title)}</strong>
            </figcaption>
          </figure>
        ))}
      </div>
      <p class="hint">
        {t(guidance === 1 ? "inside.guidance.none" : "inside.guidance.by", { guidance })}
      </p>
    </>
  );
}
