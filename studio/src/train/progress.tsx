/** A training as it goes: its loss, its pictures, and what can be done with it. */
import { useState } from "preact/hooks";
import { duration, language, t } from "../language.ts";
import { Pixels } from "../parts/pixels.tsx";
import { useStore } from "../store.ts";
import type { TrainingSample } from "../worker/training.ts";
import { LossChart } from "./loss-chart.tsx";
import {
  discard,
  pause,
  resume,
  sampleNow,
  saveZip,
  training,
  type TrainingState,
} from "./training.ts";

export function Progress() {
  const state = useStore(training);
  const { status, plan, losses, samples, warnings, problem, last, saved, parameters } = state;
  const step = last?.step ?? saved ?? 0;
  const { steps } = plan!;
  return (
    <>
      <section class="card run" aria-labelledby="run-title">
        <div class="run-head">
          <h2 id="run-title">{plan!.name}</h2>
          <p class={`badge ${status}`} role="status">
            {t(`train.status.${status as Exclude<typeof status, "none">}`)}
          </p>
          <Controls state={state} />
        </div>
        <progress class="wide" value={step} max={steps} aria-label={t("train.progress")} />
        <dl class="facts">
          <Fact name={t("train.step")} value={`${step} / ${steps}`} />
          <Fact name={t("train.loss")} value={losses.at(-1)?.[1].toFixed(4) ?? "–"} id="loss" />
          <Fact
            name={t("train.speed")}
            value={last ? t("train.rate.shown", { count: last.imagesPerSecond.toFixed(0) }) : "–"}
          />
          <Fact
            name={t("train.left")}
            value={status === "running" && last ? duration(last.secondsLeft) : "–"}
          />
          <Fact
            name={t("train.parameters")}
            value={parameters?.toLocaleString(language.get()) ?? "–"}
          />
          <Fact name={t("train.saved")} value={saved === undefined ? "–" : String(saved)} />
        </dl>
        {[...warnings, ...(problem === undefined ? [] : [problem])].map((each) => (
          <p key={each} class="warning" role="alert">
            {each}
          </p>
        ))}
        <LossChart losses={losses} />
      </section>
      <Samples samples={samples} prompts={plan!.captioned ? plan!.prompts : []} />
    </>
  );
}

function Fact({
  name,
  value,
  id,
}: {
  readonly name: string;
  readonly value: string;
  readonly id?: string;
}) {
  return (
    <div>
      <dt>{name}</dt>
      <dd {...(id !== undefined && { id })}>{value}</dd>
    </div>
  );
}

function Controls({ state: { status, plan, saved } }: { readonly state: TrainingState }) {
  const [problem, setProblem] = useState<string>();
  const save = () => {
    saveZip().catch((error: unknown) => setProblem((error as Error).message));
  };
  const confirmDiscard = () => {
    if (window.confirm(t("train.discard.sure"))) void discard();
  };
  return (
    <div class="actions">
      {status === "running" && (
        <>
          <button type="button" class="primary" onClick={pause}>
            {t("pause")}
          </button>
          <button type="button" onClick={() => void sampleNow()}>
            {t("train.sample")}
          </button>
        </>
      )}
      {status === "paused" && (saved ?? 0) < plan!.steps && (
        <button type="button" class="primary" onClick={() => void resume()}>
          {t("resume")}
        </button>
      )}
      {(status === "paused" || status === "done") && (
        <>
          <button type="button" disabled={saved === undefined} onClick={save}>
            {t("train.save")}
          </button>
          <button type="button" class="quiet" onClick={confirmDiscard}>
            {t("train.discard")}
          </button>
        </>
      )}
      {problem !== undefined && <p class="problem">{problem}</p>}
    </div>
  );
}

interface SamplesProps {
  readonly samples: readonly TrainingSample[];
  readonly prompts: readonly string[];
}

/** The same seeds at every checkpoint: a film of the training. */
function Samples({ samples, prompts }: SamplesProps) {
  if (samples.length === 0) return null;
  const count = samples[0]!.pictures.length;
  return (
    <section class="card" aria-labelledby="samples-title">
      <h2 id="samples-title">{t("train.samples")}</h2>
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
