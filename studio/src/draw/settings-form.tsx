/** The form of a drawing. */
import { useRef } from "preact/hooks";
import { cancel, draw, drawingState } from "../drawing.ts";
import { chooseModel, formModel, type FormModel, model } from "../engine.ts";
import { deviceName, megabytes, t } from "../language.ts";
import { Field, Range, Select } from "../parts/fields.tsx";
import { randomSeed, type Settings, settings } from "../settings.ts";
import { useStore } from "../store.ts";
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
  /** Called with files whose settings are to be recovered. */
  readonly onRead: (files: FileList) => void;
}

export function SettingsForm({ onRead }: FormProps) {
  const now = useStore(settings);
  const { running, problem } = useStore(drawingState);
  const state = useStore(model);
  const drawn = formModel(state);
  const ofModel = state.problem;
  const set = (fields: Partial<Settings>) => settings.patch(fields);
  const submit = (event: Event) => {
    event.preventDefault();
    void draw(now);
  };
  return (
    <form onSubmit={submit}>
      <ServerChoices now={now} set={set} />
      {drawn?.condition === "class" && <ClassField now={now} set={set} drawn={drawn} />}
      {(drawn?.condition ?? "text") === "text" && (
        <PromptField now={now} set={set} onSubmit={submit} />
      )}
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
      <Numbers now={now} set={set} drawn={drawn} />
      <StartPicture now={now} set={set} />
      <ReadSettings onRead={onRead} />
    </form>
  );
}

interface PartProps {
  readonly now: Settings;
  readonly set: (fields: Partial<Settings>) => void;
}

/** The model and the LoRA, where a server offers several. */
function ServerChoices({ now, set }: PartProps) {
  const { remote, served } = useStore(model);
  if (!remote || !served) return null;
  const { models, loras } = served;
  return (
    <div class="pair">
      {models.length > 1 && (
        <Select
          label={t("model")}
          value={now.model || models[0]!.name}
          options={models.map(({ name }) => [name, name])}
          onInput={(name) => void chooseModel(name)}
        />
      )}
      {loras.length > 0 && (
        <Select
          label={t("lora")}
          value={now.lora}
          options={[["", t("lora.none")], ...loras.map((name) => [name, name] as const)]}
          onInput={(lora) => set({ lora })}
        />
      )}
      {now.lora !== "" && (
        <Range
          label={t("lora.weight")}
          value={now.loraWeight}
          min={-1}
          max={2}
          step={0.05}
          onInput={(loraWeight) => set({ loraWeight })}
        />
      )}
    </div>
  );
}

function ClassField({ now, set, drawn: { classes } }: PartProps & { readonly drawn: FormModel }) {
  if (classes) {
    return (
      <Select
        label={t("class")}
        value={now.class || classes[0]!}
        options={classes.map((each) => [each, each])}
        onInput={(chosen) => set({ class: chosen })}
      />
    );
  }
  return (
    <Field label={t("class")}>
      {(id) => (
        <input
          id={id}
          type="number"
          min={0}
          value={now.class || "0"}
          onInput={({ currentTarget }) => set({ class: currentTarget.value })}
        />
      )}
    </Field>
  );
}

function PromptField({
  now,
  set,
  onSubmit,
}: PartProps & { readonly onSubmit: (event: Event) => void }) {
  return (
    <>
      <Field label={t("prompt")}>
        {(id) => (
          <textarea
            id={id}
            rows={2}
            value={now.prompt}
            onInput={({ currentTarget }) => set({ prompt: currentTarget.value })}
            onKeyDown={(event) => {
              if (event.key === "Enter" && !event.shiftKey) onSubmit(event);
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
    </>
  );
}

interface NumbersProps extends PartProps {
  readonly drawn: FormModel | undefined;
}

function Numbers({ now, set, drawn }: NumbersProps) {
  const samplers = drawn?.samplers ?? [now.sampler];
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
      {(drawn?.guidable ?? true) && (
        <Range
          label={t("guidance")}
          value={now.guidance}
          min={1}
          max={MOST_GUIDANCE}
          step={0.25}
          shown={now.guidance === 1 ? t("guidance.none") : String(now.guidance)}
          onInput={(guidance) => set({ guidance })}
        />
      )}
      {now.guidance !== 1 && drawn?.condition === "text" && (
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
      {drawn?.clips && <FramesField now={now} set={set} />}
      {drawn && <SizeField now={now} set={set} drawn={drawn} />}
    </div>
  );
}

function FramesField({ now, set }: PartProps) {
  return (
    <Field label={t("frames")} hint={t("frames.hint")}>
      {(id) => (
        <input
          id={id}
          type="number"
          min={0}
          value={now.frames}
          onInput={({ currentTarget }) =>
            set({ frames: Math.max(0, Math.floor(Number(currentTarget.value))) })
          }
        />
      )}
    </Field>
  );
}

function SizeField({ now, set, drawn }: PartProps & { readonly drawn: FormModel }) {
  const { sizes, width, height } = drawn;
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
  const { status, downloads, progress, device, facts, remote, served } = useStore(model);
  if (remote) {
    const name = settings.get().model || (served?.models[0]?.name ?? "");
    return served ? <p class="note">{t("server.note", { name })}</p> : null;
  }
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
        device: deviceName(device),
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
