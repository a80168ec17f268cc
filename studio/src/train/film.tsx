/** The same seeds at every checkpoint: as a film, and side by side. */
import { useEffect, useState } from "preact/hooks";
import { t } from "../language.ts";
import { Range } from "../parts/fields.tsx";
import { Pixels } from "../parts/pixels.tsx";
import type { TrainingSample } from "./plan.ts";

/** Milliseconds of a checkpoint when the film plays. */
const FRAME = 500;

interface SamplesProps {
  readonly samples: readonly TrainingSample[];
  readonly prompts: readonly string[];
}

export function Samples({ samples, prompts }: SamplesProps) {
  if (samples.length === 0) return null;
  const count = samples[0]!.pictures.length;
  return (
    <section class="card" aria-labelledby="samples-title">
      <h2 id="samples-title">{t("train.samples")}</h2>
      {samples.length > 1 && <Film samples={samples} prompts={prompts} />}
      <div class="table-scroll" tabIndex={0} role="region" aria-labelledby="samples-title">
        <table class="xy samples">
          <thead>
            <tr>
              <td />
              {samples.map(({ step }, i) => (
                <th key={i} scope="col">
                  {step}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {[...Array(count).keys()].map((row) => (
              <tr key={row}>
                <th scope="row">{prompts[row] ?? row + 1}</th>
                {samples.map(({ step, pictures }, i) => (
                  <td key={i}>
                    <Pixels
                      picture={pictures[row]!}
                      label={t("train.sample.label", { prompt: prompts[row] ?? row + 1, step })}
                    />
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** One checkpoint after another in the same places. */
function Film({ samples, prompts }: SamplesProps) {
  const last = samples.length - 1;
  const [at, setAt] = useState(last);
  const [playing, setPlaying] = useState(false);
  // A checkpoint that comes while the newest is in view is shown.
  useEffect(() => setAt((now) => (now === last - 1 ? last : Math.min(now, last))), [last]);
  useEffect(() => {
    if (!playing) return undefined;
    const timer = setInterval(() => setAt((now) => (now + 1) % samples.length), FRAME);
    return () => clearInterval(timer);
  }, [playing, samples.length]);
  const { step, pictures } = samples[at]!;
  return (
    <div class="train-film">
      <div class="train-film-pictures">
        {pictures.map((picture, i) => (
          <Pixels
            key={i}
            picture={picture}
            label={t("train.sample.label", { prompt: prompts[i] ?? i + 1, step })}
          />
        ))}
      </div>
      <div class="train-film-controls">
        <button type="button" onClick={() => setPlaying(!playing)}>
          {t(playing ? "pause" : "play")}
        </button>
        <Range
          label={t("train.film")}
          value={at}
          min={0}
          max={last}
          shown={t("train.film.step", { step })}
          onInput={(value) => {
            setPlaying(false);
            setAt(value);
          }}
        />
      </div>
    </div>
  );
}
