/** The messages between the server and a process that draws. */
import type { Failure } from "../engine/runtime/worker-protocol.ts";
import type { ChosenLora } from "../pipelines/open/lora-node.ts";
import type { GenerateSettings } from "../pipelines/settings.ts";
import type { GivenName, StoredPicture } from "./job-store.ts";
import type { OutputFormat } from "./wire.ts";

/** The model that a process opens, once. */
export interface OpenMessage {
  readonly kind: "open";
  readonly source: string;
  readonly loras: readonly ChosenLora[];
  /** Bytes that drawing may take; the machine's available memory unless given. */
  readonly memory: number | undefined;
}

export interface DrawMessage {
  readonly kind: "draw";
  readonly id: string;
  readonly settings: GenerateSettings;
  /** Where the pictures are written, as 0.png, 1.png and so on. */
  readonly folder: string;
  /** The files in that folder to start from. */
  readonly given: readonly GivenName[];
  readonly outputFormat: OutputFormat;
  readonly previews: number;
  /** What the metadata of the pictures say. */
  readonly model: string;
  readonly version: string;
}

export type ToDrawing =
  | OpenMessage
  | DrawMessage
  | { readonly kind: "cancel"; readonly id: string };

export type FromDrawing =
  | { readonly kind: "opened" }
  | { readonly kind: "refused"; readonly failure: Failure }
  | {
      readonly kind: "progress";
      readonly id: string;
      readonly step: number;
      readonly steps: number;
    }
  | {
      readonly kind: "preview";
      readonly id: string;
      readonly step: number;
      readonly steps: number;
      /** PNG files. */
      readonly pictures: readonly Uint8Array[];
    }
  | { readonly kind: "drawn"; readonly id: string; readonly pictures: readonly StoredPicture[] }
  | { readonly kind: "cancelled"; readonly id: string }
  | { readonly kind: "failed"; readonly id: string; readonly failure: Failure };
