/** What a training says at its start about its pictures, and what to expect of it. */
import { counted } from "../../engine/errors.ts";
import { isRecord } from "../../engine/records.ts";
import type { RunConfig } from "../config/config.ts";
import type { DataSource } from "../loop.ts";

/** The pictures seen from which models of the examples drew rough shapes, and details. */
const [ROUGH, FINE] = [20_000, 200_000];

/** Sentences for the start of a training. */
export function startNotes(
  config: Pick<RunConfig, "training" | "validation"> & object,
  { info }: Pick<DataSource, "info">,
  resumedAt: number | undefined,
  ranks = 1,
): readonly string[] {
  const ranked = ranks > 1 ? rankedNote(config) : [];
  if (resumedAt !== undefined) return ranked;
  return [
    ...ranked,
    ...heldOutNote(config, info),
    ...("lora" in config || "autoencoder" in config ? [] : [expectation(config)]),
  ];
}

/** The encoder of a VQGAN ends in a batch norm, which is the only layer that computes across the rows of a batch. */
function rankedNote(config: object): readonly string[] {
  const isVq =
    "autoencoder" in config && isRecord(config.autoencoder) && config.autoencoder["kind"] === "vq";
  return isVq
    ? [
        "The batch norm of a VQGAN takes the statistics of each rank's rows, so that the losses depend on the number of ranks.",
      ]
    : [];
}

function heldOutNote(
  { validation: { data, share, own } }: Pick<RunConfig, "validation">,
  { count, heldOut }: DataSource["info"],
): readonly string[] {
  if (data || share === 0) return [];
  if (heldOut) {
    return [
      `${number(heldOut)} of ${number(count + heldOut)} pictures ${heldOut === 1 ? "is" : "are"} held out to measure the loss on (validation.share).`,
    ];
  }
  const measured = own
    ? "the loss is measured on the pictures that it learns"
    : "there is no validation loss";
  const pictures = count === 1 ? "1 picture is" : `${number(count)} pictures are`;
  return [`${pictures} too few to hold some out, so ${measured}.`];
}

function expectation({ training }: Pick<RunConfig, "training">): string {
  const { batch, accumulate, steps } = training;
  const stepsTo = (pictures: number) => counted(Math.ceil(pictures / (batch * accumulate)), "step");
  const all =
    steps === undefined ? "" : `; this training sees ${number(steps * batch * accumulate)}`;
  return `Samples are noise and blurs at first. In our examples rough shapes appear after ${number(ROUGH)} pictures seen (${stepsTo(ROUGH)} of this batch), and details after ${number(FINE)} (${stepsTo(FINE)})${all}.`;
}

function number(value: number): string {
  return value.toLocaleString("en");
}
