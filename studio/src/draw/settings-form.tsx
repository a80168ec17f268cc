/** The form of a drawing. */
import { useRef } from "preact/hooks";
import { cancel, draw, drawingState } from "../drawing.ts";
import { model } from "../engine.ts";
import { megabytes, t } from "../language.ts";
import { Field, Range, Select } from "../parts/fields.tsx";
import { randomSeed, type Settings, settings } from "../settings.ts";
import { useStore } from "../store.ts";
import type { ModelFacts } from "../worker/services.ts";
import { StartPicture } from "./start-picture.tsx";

const MOST_STEPS = 60;
const MOST_COUNT = 16;
const MOST_GUIDANCE = 8;

const examples = [
  "red apple",
  "purple cat",
  "ghost with a crown",
  "blue house",
  "扁平风格的猫",
  "robot, twemoji style",
  "dog and a balloon",
  "绿色的马",
];

interface FormProps {
  readonly facts: ModelFacts | undefined;
  /** Called with files whose settings are to be recovered. */
  readonly onRead: (files: FileList) => void;
}

export function SettingsForm({ facts, onRead }: FormProps) {
  const now = useStore(settings);
  const { running, problem } = useStore(drawingState);
  const { problem: ofModel } = useStore(model);
  const set = (fields: Partial<Settings>) => settings.patch(fields);
  const submit = (event: Event) => {
    event.preventDefault();
    void draw(now);
  };
  return (
    <form onSubmit={submit}>
      <Field label={t("prompt")}>
        {(id) => (
          <textarea
            id={id}
            rows={2}
            value={now.prompt}
            onInput={({ currentTarget }) => set({ prompt: currentTarget.value })}
            onKeyDown={(event) => {
              if (event.key === "Enter" && !event.shiftKey) submit(event);
            }}
          />
        )}
      </Field>
      <div class="chips" role="group" aria-label={t("examples")}>
        {examples.map((each) => (
          <button
            key={each}
            type="button"
            class="chip"
            lang={/[一-龥]/.test(each) ? "zh-Hans" : "en"}
            onClick={() => set({ prompt: each })}
          >
            {each}
          </button>
        ))}
      </div>
      <div class="actions">
        <button type="submit" class="primary" disabled={running}>
          {t(running ? "drawing" : "draw")}
        </button>
        {running && (
          <button type="button" onClick={cancel}>
            {t("cancel")}
          </button>
        )}
      </div>
      <DownloadNote />
      {(problem ?? ofModel) !== undefined && (
        <p class="problem" role="alert">
          {problem ?? ofModel}
        </p>
      )}
      <Numbers now={now} set={set} facts={facts} />
      <StartPicture now={now} set={set} />
      <ReadSettings onRead={onRead} />
    </form>
  );
}

interface NumbersProps {
  readonly now: Settings;
  readonly set: (fields: Partial<Settings>) => void;
  readonly facts: ModelFacts | undefined;
}

function Numbers({ now, set, facts }: NumbersProps) {
  const samplers = facts?.samplers ?? [now.sampler];
  return (
    <div class="numbers">
      <Field label={t("seed")}>
        {(id) => (
          <div class="joined">
            <input
              id={id}
              type="number"
              min={0}
              step={1}
              value={now.seed}
              onInput={({ currentTarget }) =>
                set({ seed: Math.max(0, Math.floor(Number(currentTarget.value))) })
              }
            />
            <button type="button" onClick={() => set({ seed: randomSeed() })}>
              {t("seed.other")}
            </button>
          </div>
        )}
      </Field>
      <Range
        label={t("count")}
        value={now.count}
        min={1}
        max={MOST_COUNT}
        onInput={(count) => set({ count })}
      />
      <Range
        label={t("steps")}
        value={now.steps}
        min={1}
        max={MOST_STEPS}
        onInput={(steps) => set({ steps })}
      />
      <Range
        label={t("guidance")}
        value={now.guidance}
        min={1}
        max={MOST_GUIDANCE}
        step={0.25}
        shown={now.guidance === 1 ? t("guidance.none") : String(now.guidance)}
        onInput={(guidance) => set({ guidance })}
      />
      {now.guidance !== 1 && (
        <Field label={t("negative")}>
          {(id) => (
            <input
              id={id}
              value={now.negativePrompt}
              onInput={({ currentTarget }) => set({ negativePrompt: currentTarget.value })}
            />
          )}
        </Field>
      )}
      <Select
        label={t("sampler")}
        value={now.sampler}
        options={samplers.map((each) => [each, each])}
        onInput={(sampler) => set({ sampler })}
      />
      {facts && <SizeField now={now} set={set} facts={facts} />}
    </div>
  );
}

function SizeField({ now, set, facts }: NumbersProps & { readonly facts: ModelFacts }) {
  const { sizes, width, height } = facts;
  if (sizes.fixed) return <p class="hint">{t("size.fixed", { width, height })}</p>;
  const unit = Math.max(sizes.unit, 8);
  const choices = [0.5, 1, 1.5, 2].map((scale) => Math.round((scale * width) / unit) * unit);
  return (
    <div class="pair">
      {(["width", "height"] as const).map((side) => (
        <Select
          key={side}
          label={t(side)}
          value={String(now[side])}
          options={choices.map((each) => [String(each), String(each)])}
          onInput={(value) => set({ [side]: Number(value) })}
        />
      ))}
    </div>
  );
}

/** What drawing will download, is downloading, or costs. */
function DownloadNote() {
  const { status, downloads, progress, device, facts } = useStore(model);
  if (status === "open") return null;
  if (status === "opening") {
    const { file = "", loaded = 0, total } = progress ?? {};
    return (
      <div class="note" role="status">
        <progress
          aria-label={t("downloading")}
          {...(total !== undefined && { value: loaded, max: total })}
        />
        <p>
          {progress
            ? t("download.file", { file, loaded: megabytes(loaded) })
            : t("download.preparing")}
        </p>
      </div>
    );
  }
  if (!downloads) return null;
  return (
    <p class="note">
      {t("download.before", {
        all: megabytes(downloads.runtime + downloads.model),
        runtime: megabytes(downloads.runtime),
        model: megabytes(downloads.model),
        name: facts?.name ?? "",
        device: device === "wasm" ? "WebAssembly" : "WebGPU",
      })}
    </p>
  );
}

function ReadSettings({ onRead }: Pick<FormProps, "onRead">) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <div class="read-settings">
      <button type="button" class="quiet" onClick={() => input.current?.click()}>
        {t("recover")}
      </button>
      <input
        ref={input}
        type="file"
        accept="image/png"
        class="visually-hidden"
        tabIndex={-1}
        aria-label={t("recover")}
        data-purpose="recover"
        onChange={({ currentTarget }) => {
          if (currentTarget.files) onRead(currentTarget.files);
          currentTarget.value = "";
        }}
      />
    </div>
  );
}
