/** The messages between a process that has pictures drawn and those that draw them. */
import type { Failure } from "../engine/runtime/worker-protocol.ts";
import type { OpenPipelineOptions } from "../pipelines/open/open-node.ts";
import type { GenerateRequest } from "../pipelines/settings.ts";
import type { DrawnBy } from "./drawer.ts";

export type ToDrawing =
  | { readonly kind: "open"; readonly source: string; readonly options: OpenPipelineOptions }
  | {
      readonly kind: "draw";
      readonly id: number;
      readonly request: GenerateRequest;
      readonly by: DrawnBy;
    };

export type FromDrawing =
  | { readonly kind: "drawn"; readonly id: number; readonly file: Uint8Array }
  | { readonly kind: "failed"; readonly id: number; readonly failure: Failure };
