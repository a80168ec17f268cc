/** The language of the page, and its light or dark look. */
import { keptStore } from "./store.ts";
import { en, type StringKey, type Strings } from "./strings.ts";
import { zh } from "./strings-zh.ts";

export const languages = { en: "English", zh: "中文" } as const;
export type Language = keyof typeof languages;

const tables: Readonly<Record<Language, Strings>> = { en, zh };

const first: Language = navigator.language.startsWith("zh") ? "zh" : "en";
export const language = keptStore<Language>("patchwise-language", first, (value) =>
  Object.hasOwn(languages, value as string),
);

export const looks = ["auto", "light", "dark"] as const;
export type Look = (typeof looks)[number];
export const look = keptStore<Look>("patchwise-look", "auto", (value) =>
  looks.includes(value as Look),
);

function apply(): void {
  const root = document.documentElement;
  root.lang = language.get() === "zh" ? "zh-Hans" : "en";
  root.dataset["look"] = look.get();
}
language.subscribe(apply);
look.subscribe(apply);
apply();

/** A text in the page's language, with values in the place of {names}. */
export function t(key: StringKey, values: Readonly<Record<string, string | number>> = {}): string {
  const text = tables[language.get()][key];
  return text.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? ""));
}

/** The name of what draws. */
export function deviceName(device: "wasm" | "webgpu" | "server"): string {
  if (device === "server") return t("device.server");
  return device === "wasm" ? "WebAssembly" : "WebGPU";
}

/** Bytes as megabytes. */
export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toLocaleString(language.get(), { maximumFractionDigits: 1 })} MB`;
}

/** A time in words. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "…";
  if (seconds < 90) return t("seconds", { count: Math.round(seconds) });
  return t("minutes", { count: Math.round(seconds / 60) });
}
