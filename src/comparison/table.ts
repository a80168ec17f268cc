/** The results of a comparison, as a table in Markdown. */
import type { Measures } from "../evaluation/distances.ts";

/** One model of a comparison. */
export interface ComparedModel extends Measures {
  readonly name: string;
  readonly parameters: number;
  /** Multiply-adds of one image's forward pass, in 10⁹. */
  readonly gflops: number;
  /** The number of images in all training steps. */
  readonly images: number;
  readonly minutes: number;
  /** The training compute in 10¹² multiply-adds, three forward passes for each image (Peebles & Xie, 2023). */
  readonly tflop: number;
  /** The mean training loss of the last steps. */
  readonly loss: number;
  /** The loss on held-out pictures, if there are some. */
  readonly validation?: number | undefined;
  /** Describes the loss; only losses of one kind are comparable. */
  readonly lossKind: string;
  /** The share of pictures that the extractor classifies as the class they were conditioned on. */
  readonly recognised?: number | undefined;
  /** Seconds to draw one picture, averaged over batches. */
  readonly secondsAnImage: number;
  /** Number of steps and sampler. */
  readonly sampling: string;
}

export interface Comparison {
  readonly data: string;
  /** The training budget of each model: "6 min" or "20 Tflop". */
  readonly budget: string;
  readonly extractor: string;
  /** Describes the real pictures that the drawn ones are compared with. */
  readonly reference: string;
  /** The number of pictures that each model draws. */
  readonly drawn: number;
  /** The same measures of real pictures outside the reference, which bound what a model can reach. */
  readonly real?: Pick<ComparedModel, "fid" | "kid" | "precision" | "recall" | "recognised">;
  /** The same measures of noise, which a model that draws anything must beat. */
  readonly noise?: Pick<ComparedModel, "fid" | "kid" | "precision" | "recall">;
  /** The number of classes that the extractor tells apart, and its share of right answers on the reference. */
  readonly classes?: { readonly count: number; readonly known: number } | undefined;
  /** The number of reference pictures. */
  readonly referenced?: number;
  readonly models: readonly ComparedModel[];
}

/** With fewer pictures, distances between sets depend more on which pictures these are than on the model. */
const FEW = 100;

/** Sentences on measures that say little. */
function cautions({ drawn, referenced = FEW, classes }: Comparison): string[] {
  const few = Math.min(drawn, referenced);
  const { count = 1, known = 1 } = classes ?? {};
  return [
    ...(few < FEW
      ? [
          `With ${drawn} drawn pictures and ${referenced} real ones, FID, KID, precision and recall say little: compare them with the row of noise, and use at least ${FEW} of each.`,
        ]
      : []),
    ...(count > 1 && known < (1 + 2 / count) / 3
      ? [
          `The extractor recognises ${percent(known)} of real pictures, where guessing gives ${percent(1 / count)}, so "recognised" and the distances say little.`,
        ]
      : []),
  ];
}

type Column = readonly [title: string, cell: (model: ComparedModel) => string];

/** Formats a number with so many significant digits, and NaN and infinity, which JSON stores as null, as a dash. */
export const short = (value: number | null, digits = 3) =>
  Number.isFinite(value) ? String(Number(value!.toPrecision(digits))) : "–";
export const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

/** Returns Markdown: a sentence on the comparison, and a table with a row for each model. */
export function comparisonTable(comparison: Comparison): string {
  const { data, budget, extractor, reference, drawn, real, noise, models } = comparison;
  const validated = models.every(({ validation }) => validation !== undefined);
  const classes = models.every(({ recognised }) => recognised !== undefined);
  const chance = comparison.classes && ` (chance ${percent(1 / comparison.classes.count)})`;
  const recognisedTitle = `recognised${chance ?? ""}`;
  const columns: readonly Column[] = [
    ["model", ({ name }) => name],
    ["parameters", ({ parameters }) => `${(parameters / 1e6).toFixed(2)} M`],
    ["Gflops", ({ gflops }) => short(gflops)],
    ["images", ({ images }) => images.toLocaleString("en")],
    ["minutes", ({ minutes }) => minutes.toFixed(1)],
    ["Tflop", ({ tflop }) => short(tflop)],
    [
      validated ? "held-out loss" : "training loss",
      ({ validation, loss, lossKind }) => `${short(validated ? validation! : loss)} (${lossKind})`,
    ],
    ["FID", ({ fid }) => short(fid)],
    [
      "KID × 1000",
      ({ kid, kidDeviation }) => `${short(1000 * kid)} ± ${short(1000 * kidDeviation, 2)}`,
    ],
    ["precision", ({ precision }) => percent(precision)],
    ["recall", ({ recall }) => percent(recall)],
    ...(classes
      ? [[recognisedTitle, ({ recognised }: ComparedModel) => percent(recognised!)] as const]
      : []),
    ["s an image", ({ secondsAnImage, sampling }) => `${short(secondsAnImage, 2)} (${sampling})`],
  ];
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const rowOf = (model: string, measured: NonNullable<Comparison["real"]>) => {
    const cells: Readonly<Record<string, string>> = {
      model,
      FID: short(measured.fid),
      "KID × 1000": short(1000 * measured.kid),
      precision: percent(measured.precision),
      recall: percent(measured.recall),
      ...(measured.recognised !== undefined && { [recognisedTitle]: percent(measured.recognised) }),
    };
    return row(columns.map(([title]) => cells[title] ?? ""));
  };
  return [
    `${data}, ${budget} of training each; ${drawn.toLocaleString("en")} pictures drawn by each, compared with ${reference} by the features of ${extractor}.`,
    "",
    row(columns.map(([title]) => title)),
    row(columns.map((_, i) => (i === 0 ? "---" : "---:"))),
    ...models.map((model) => row(columns.map(([, cell]) => cell(model)))),
    ...(real ? [rowOf("*real pictures*", real)] : []),
    ...(noise ? [rowOf("*noise*", noise)] : []),
    "",
    ...cautions(comparison).flatMap((sentence) => [sentence, ""]),
  ].join("\n");
}
