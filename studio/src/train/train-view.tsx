/** Train: a small transformer on pictures that never leave the machine. */
import { useEffect, useState } from "preact/hooks";
import { duration, language, t } from "../language.ts";
import { Choice, Field, Range } from "../parts/fields.tsx";
import { store, useStore } from "../store.ts";
import { model as drawingModel } from "../engine.ts";
import type { TrainingPlan } from "./plan.ts";
import { promptsOf, type TrainingExample } from "./examples.ts";
import { ExampleTable } from "./example-table.tsx";
import { Progress } from "./progress.tsx";
import { findKept, measure, start, training } from "./training.ts";

/** Sides of the pictures in pixels, and of the patches that they are cut into. */
const sides = { "16": 2, "32": 4, "64": 8 } as const;
export type Side = keyof typeof sides;

/** The sizes of the slider: width and depth of the transformer. */
const models = [
  { hidden: 32, depth: 2 },
  { hidden: 64, depth: 3 },
  { hidden: 96, depth: 4 },
  { hidden: 128, depth: 4 },
  { hidden: 192, depth: 5 },
  { hidden: 256, depth: 6 },
] as const;

interface Choices {
  readonly examples: readonly TrainingExample[];
  readonly side: Side;
  readonly size: number;
  readonly steps: number;
  readonly batch: number;
  readonly rate: number;
  readonly name: string;
}

/** Outlives the view. */
const choices = store<Choices>({
  examples: [],
  side: "16",
  size: 1,
  steps: 400,
  batch: 16,
  rate: 3e-3,
  name: "mine",
});

/** Checkpoints at which pictures are drawn. */
const SAMPLES = 10;

function planOf({ examples, side, size, steps, batch, rate, name }: Choices): TrainingPlan {
  const captioned = examples.some(({ caption }) => caption.trim() !== "");
  return {
    name: name.trim() || "mine",
    pictures: examples.map(({ caption, picture }) => ({ ...picture, caption })),
    captioned,
    ...models[size]!,
    patch: sides[side],
    steps,
    batch,
    rate,
    // A multiple of the steps between looks.
    sampleEvery: Math.max(5, 5 * Math.round(steps / SAMPLES / 5)),
    prompts: promptsOf(examples),
  };
}

export function TrainView() {
  const { status } = useStore(training);
  const { remote } = useStore(drawingModel);
  useEffect(() => void findKept(), []);
  return (
    <div class="train">
      <h1>{t("train.title")}</h1>
      <p class="lead">{t(remote ? "train.server.lead" : "train.lead")}</p>
      {status === "none" ? <Setup /> : <Progress />}
    </div>
  );
}

function Setup() {
  const now = useStore(choices);
  const { examples, side, size, steps, batch, rate, name } = now;
  const set = (fields: Partial<Choices>) => choices.patch(fields);
  const { hidden, depth } = models[size]!;
  return (
    <div class="setup">
      <section class="card" aria-labelledby="train-pictures">
        <h2 id="train-pictures">{t("train.pictures", { count: examples.length })}</h2>
        <Choice
          label={t("train.side")}
          value={side}
          options={(Object.keys(sides) as Side[]).map((each) => [each, `${each} × ${each}`])}
          // Pictures are made at one size, so those of another are given anew.
          onInput={(next) => set({ side: next, examples: [] })}
        />
        <ExampleTable
          examples={examples}
          side={Number(side)}
          onExamples={(next) => set({ examples: next })}
        />
      </section>
      <section class="card" aria-labelledby="train-model">
        <h2 id="train-model">{t("train.model")}</h2>
        <Field label={t("train.name")}>
          {(id) => (
            <input
              id={id}
              value={name}
              pattern="[\w-]+"
              onInput={({ currentTarget }) =>
                set({ name: currentTarget.value.replace(/[^\w-]/g, "") })
              }
            />
          )}
        </Field>
        <Range
          label={t("train.size")}
          value={size}
          min={0}
          max={models.length - 1}
          shown={t("train.size.shown", { hidden, depth })}
          onInput={(value) => set({ size: value })}
        />
        <Range
          label={t("steps.training")}
          value={steps}
          min={50}
          max={4000}
          step={50}
          onInput={(value) => set({ steps: value })}
        />
        <Range
          label={t("train.batch")}
          value={batch}
          min={4}
          max={64}
          step={4}
          onInput={(value) => set({ batch: value })}
        />
        <Range
          label={t("train.rate")}
          value={Math.log10(rate)}
          min={-4}
          max={-1.5}
          step={0.1}
          shown={rate.toPrecision(2)}
          onInput={(value) => set({ rate: 10 ** value })}
        />
        <Launch now={now} />
      </section>
    </div>
  );
}

function Launch({ now }: { readonly now: Choices }) {
  const [estimate, setEstimate] = useState<string>();
  const ready = now.examples.length > 0;
  const { remote } = useStore(drawingModel);
  const { problem } = useStore(training);
  const estimateTime = async () => {
    setEstimate(t("train.measuring"));
    try {
      const { seconds, parameters } = await measure(planOf(now));
      const count = parameters.toLocaleString(language.get());
      setEstimate(t("train.estimate", { time: duration(seconds), parameters: count }));
    } catch (error) {
      setEstimate((error as Error).message);
    }
  };
  // An estimate is of one plan.
  useEffect(() => setEstimate(undefined), [now]);
  return (
    <>
      <div class="actions">
        <button
          type="button"
          class="primary"
          disabled={!ready}
          onClick={() => void start(planOf(now))}
        >
          {t("train.start")}
        </button>
        {!remote && (
          <button type="button" disabled={!ready} onClick={() => void estimateTime()}>
            {t("train.measure")}
          </button>
        )}
      </div>
      {problem !== undefined && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
      <p class="hint" role="status">
        {ready
          ? (estimate ?? t(remote ? "train.server.hint" : "train.measure.hint"))
          : t("train.none")}
      </p>
    </>
  );
}
