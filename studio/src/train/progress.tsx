/** A training as it goes: its loss, its pictures, and what can be done with it. */
import { useState } from "preact/hooks";
import { duration, language, t } from "../language.ts";
import { useStore } from "../store.ts";
import { Samples } from "./film.tsx";
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
  const { status, plan, losses, samples, warnings, problem, last, saved, parameters, job } = state;
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
          <Fact name={t("train.where")} value={job ? t("device.server") : t("train.here")} />
          <Fact name={t("train.saved")} value={saved === undefined ? "–" : String(saved)} />
        </dl>
        {[...warnings, ...(problem === undefined ? [] : [problem])].map((each) => (
          <p key={each} class="warning" role="alert">
            {each}
          </p>
        ))}
        <LossChart losses={losses} name={plan!.name} isOver={status === "done"} />
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

function Controls({ state: { status, plan, saved, job } }: { readonly state: TrainingState }) {
  const [problem, setProblem] = useState<string>();
  const attempt = (action: () => Promise<void>) => () => {
    action().catch((error: unknown) => setProblem((error as Error).message));
  };
  const isPaused = status === "paused" && (saved ?? 0) < plan!.steps;
  // The server keeps the files of trainings that are done.
  const hasModel = job ? job.files.length > 0 : saved !== undefined;
  const confirmDiscard = () => {
    if (window.confirm(t("train.discard.sure"))) void discard();
  };
  return (
    <div class="actions">
      {status === "running" && (
        <>
          <button type="button" class="primary" onClick={attempt(pause)}>
            {t("pause")}
          </button>
          <button type="button" onClick={attempt(sampleNow)}>
            {t("train.sample")}
          </button>
        </>
      )}
      {isPaused && (job?.state ?? "paused") === "paused" && (
        <button type="button" class="primary" onClick={attempt(resume)}>
          {t("resume")}
        </button>
      )}
      {(status === "paused" || status === "done") && (
        <>
          <button type="button" disabled={!hasModel} onClick={attempt(saveZip)}>
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
