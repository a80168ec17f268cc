/** The frame of the page: its views as tabs, the device, the language and the look. */
import { useEffect, useRef } from "preact/hooks";
import { CompareView } from "./compare/compare-view.tsx";
import { DrawView } from "./draw/draw-view.tsx";
import { choosePlace, type Device, model, threads } from "./engine.ts";
import { hasServer } from "./server/api.ts";
import { InsideView } from "./inside/inside-view.tsx";
import { type Language, language, languages, look, looks, t } from "./language.ts";
import { useStore } from "./store.ts";
import type { StringKey } from "./strings.ts";
import { TrainView } from "./train/train-view.tsx";
import { show, view, viewNames as names, type ViewName } from "./views.ts";

const views = {
  draw: { label: "tab.draw", View: DrawView },
  inside: { label: "tab.inside", View: InsideView },
  compare: { label: "tab.compare", View: CompareView },
  train: { label: "tab.train", View: TrainView },
} as const satisfies Record<ViewName, { label: StringKey; View: () => unknown }>;

export function App() {
  const current = useStore(view);
  useStore(language);
  useStore(look);
  useEffect(() => {
    document.title = `${t(views[current].label)} · Patchwise Studio`;
  });
  const { View } = views[current];
  return (
    <>
      <a class="skip" href="#content" onClick={skip}>
        {t("skip")}
      </a>
      <header class="top">
        <Brand />
        <Tabs current={current} />
        <div class="top-tools">
          <DevicePicker />
          <LanguagePicker />
          <LookPicker />
        </div>
      </header>
      <main id="content" tabIndex={-1}>
        <div role="tabpanel" id={`panel-${current}`} aria-labelledby={`tab-${current}`}>
          <View key={current} />
        </div>
      </main>
    </>
  );
}

function skip(event: Event): void {
  event.preventDefault();
  document.querySelector<HTMLElement>("#content")?.focus();
}

function Brand() {
  const shades = [0.35, 0.6, 0.35, 0.6, 1, 0.6, 0.35, 0.6, 0.35];
  return (
    <p class="brand">
      <svg viewBox="0 0 24 24" width="26" height="26" aria-hidden="true">
        {shades.map((opacity, i) => (
          <rect
            key={i}
            x={2 + 7 * (i % 3)}
            y={2 + 7 * Math.floor(i / 3)}
            width="6"
            height="6"
            rx="1.5"
            opacity={opacity}
          />
        ))}
      </svg>
      <span>
        Patchwise <em>Studio</em>
      </span>
    </p>
  );
}

/** Tabs by the ARIA pattern: arrow keys move, and the tab that is reached is shown. */
function Tabs({ current }: { readonly current: ViewName }) {
  const list = useRef<HTMLDivElement>(null);
  const onKeyDown = (event: KeyboardEvent) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = names.indexOf(current);
    const to =
      event.key === "Home"
        ? 0
        : event.key === "End"
          ? names.length - 1
          : move && (at + move + names.length) % names.length;
    if (to === undefined) return;
    event.preventDefault();
    show(names[to]!);
    list.current?.querySelector<HTMLElement>(`#tab-${names[to]}`)?.focus();
  };
  return (
    <div class="tabs" role="tablist" aria-label={t("tabs")} ref={list} onKeyDown={onKeyDown}>
      {names.map((name) => (
        <button
          key={name}
          type="button"
          role="tab"
          id={`tab-${name}`}
          aria-selected={name === current}
          aria-controls={name === current ? `panel-${name}` : undefined}
          tabIndex={name === current ? 0 : -1}
          onClick={() => show(name)}
        >
          {t(views[name].label)}
        </button>
      ))}
    </div>
  );
}

function DevicePicker() {
  const { device, hasWebGpu, remote, served, status } = useStore(model);
  const deviceNames: Readonly<Record<Device, string>> = {
    wasm: t("device.wasm", { threads }),
    webgpu: "WebGPU",
  };
  return (
    <label class="pill device" data-status={remote ? (served ? "open" : "closed") : status}>
      <span class="dot" aria-hidden="true" />
      <span class="visually-hidden">{t("device")}</span>
      <select
        value={remote ? "server" : device}
        onInput={({ currentTarget }) => void choosePlace(currentTarget.value as Device | "server")}
      >
        {hasServer && <option value="server">{t("device.server")}</option>}
        <option value="wasm">{deviceNames.wasm}</option>
        {hasWebGpu && <option value="webgpu">{deviceNames.webgpu}</option>}
      </select>
    </label>
  );
}

function LanguagePicker() {
  const current = useStore(language);
  return (
    <label class="pill">
      <span class="visually-hidden">{t("language")}</span>
      <select
        value={current}
        onInput={({ currentTarget }) => language.set(currentTarget.value as Language)}
      >
        {Object.entries(languages).map(([code, name]) => (
          <option key={code} value={code} lang={code}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

function LookPicker() {
  const current = useStore(look);
  const next = looks[(looks.indexOf(current) + 1) % looks.length]!;
  const signs = { auto: "◐", light: "☀", dark: "☾" } as const;
  const label = t("look", { look: t(`look.${current}`) });
  return (
    <button
      type="button"
      class="pill round"
      aria-label={label}
      title={label}
      onClick={() => look.set(next)}
    >
      <span aria-hidden="true">{signs[current]}</span>
    </button>
  );
}
