/** The settings of the form, in the address of the page and in requests. */
import type { GenerateRequest } from "../../src/pipelines/settings.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import { keptStore, store } from "./store.ts";

export interface Settings {
  readonly prompt: string;
  readonly negativePrompt: string;
  readonly seed: number;
  readonly count: number;
  readonly steps: number;
  readonly guidance: number;
  readonly sampler: string;
  readonly width: number;
  readonly height: number;
  /** The picture to start from, which is in no address. */
  readonly image?: Picture | undefined;
  readonly mask?: Picture | undefined;
  readonly strength: number;
  /** Names of a model and a LoRA of the server; empty for its first model, and for no LoRA. */
  readonly model: string;
  readonly lora: string;
  readonly loraWeight: number;
  /** The name or number of a class, for models that draw classes. */
  readonly class: string;
  /** Frames of a clip; 0 for the model's own number. */
  readonly frames: number;
}

const firstSettings: Settings = {
  prompt: "ghost with a crown",
  negativePrompt: "",
  seed: 7,
  count: 1,
  steps: 20,
  guidance: 1,
  sampler: "euler",
  width: 64,
  height: 64,
  strength: 0.6,
  model: "",
  lora: "",
  loraWeight: 1,
  class: "",
  frames: 0,
};

type Plain = Omit<Settings, "image" | "mask">;

const kept = keptStore<Plain>("patchwise-settings", firstSettings, isSettings);

export const settings = store<Settings>({ ...kept.get(), ...settingsOfHash(location.hash) });
settings.subscribe(() => {
  const { image: _image, mask: _mask, ...plain } = settings.get();
  kept.set(plain);
});

/** Largest seed that "another seed" gives: easy to read and to type. */
const MOST_SEED = 99_999;

export function randomSeed(): number {
  return Math.floor(Math.random() * (MOST_SEED + 1));
}

/** A request of these settings to the model of the page; what is the model's own is left out. */
export function requestOf(given: Settings): GenerateRequest {
  const { negativePrompt, image, mask, strength, guidance } = given;
  const { prompt, seed, count, steps, sampler, width, height } = given;
  return {
    prompt,
    seed,
    count,
    steps,
    sampler,
    width,
    height,
    guidance,
    ...(negativePrompt.trim() !== "" && guidance !== 1 && { negativePrompt }),
    ...(image && { image, strength, ...(mask && { mask }) }),
  };
}

/** The part of the address behind "#": a view, and settings. */
export function hashOf(view: string, given: Settings): string {
  const fields = Object.entries(given).filter(([name, value]) => isShared(name, value));
  return `#/${view}?${new URLSearchParams(fields.map(([name, value]) => [name, String(value)]))}`;
}

function isShared(name: string, value: unknown): boolean {
  const isOwn = value === firstSettings[name as keyof Settings] && name !== "prompt";
  return typeof value !== "object" && value !== undefined && value !== "" && !isOwn;
}

/**
 * The settings of an address: those that it leaves out or that are damaged are the first ones, whatever this browser had before, since
 * `hashOf` leaves these out. An address without any changes nothing.
 */
export function settingsOfHash(hash: string): Partial<Settings> {
  const [, query] = hash.split("?");
  if (query === undefined) return {};
  const given = new URLSearchParams(query);
  const found: Record<string, unknown> = {
    ...firstSettings,
    image: undefined,
    mask: undefined,
  };
  for (const [name, own] of Object.entries(firstSettings)) {
    const text = given.get(name);
    if (text === null) continue;
    const value = typeof own === "number" ? Number(text) : text;
    if (typeof value === "string" || Number.isFinite(value)) found[name] = value;
  }
  return found;
}

/** The settings in the metadata of a picture. */
export function settingsOfMetadata(metadata: Readonly<Record<string, unknown>>): Partial<Settings> {
  const found: Record<string, unknown> = { count: 1, image: undefined, mask: undefined };
  for (const [name, own] of Object.entries(firstSettings)) {
    const value = metadata[name];
    if (typeof value === typeof own) found[name] = value;
  }
  const [lora] = (metadata["loras"] ?? []) as readonly { file: string; weight: number }[];
  return { ...found, lora: lora?.file ?? "", loraWeight: lora?.weight ?? 1 };
}

function isSettings(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const given = value as Record<string, unknown>;
  return Object.entries(firstSettings).every(([name, own]) => typeof given[name] === typeof own);
}
