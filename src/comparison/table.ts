/** What a comparison of models found, as a table for people. */

/** One model of a comparison. */
export interface ComparedModel {
  readonly name: string;
  /** Of the network. */
  readonly parameters: number;
  /** 10⁹ multiply-adds of one forward pass of one image. */
  readonly gflops: number;
  /** Trained on. */
  readonly images: number;
  readonly minutes: number;
  /** Of training, as Peebles & Xie (2023) count it. */
  readonly tflop: number;
  /** Of the last steps. */
  readonly loss: number;
  /** On pictures that were not trained on, where there are some. */
  readonly validation?: number | undefined;
  /** What the losses are, since they compare only where it is the same. */
  readonly lossKind: string;
  readonly fid: number;
  readonly kid: number;
  /** Over subsets. */
  readonly kidDeviation: number;
  readonly precision: number;
  readonly recall: number;
  /** Share of the pictures in which the extractor sees the class that was asked for. */
  readonly recognised?: number | undefined;
  /** To draw one picture, in batches. */
  readonly secondsAnImage: number;
  /** Of the network, a picture. */
  readonly sampling: string;
}

/** What they are compared by. */
export interface Comparison {
  readonly data: string;
  /** What each was given: "6 min" or "20 Tflop". */
  readonly budget: string;
  readonly extractor: string;
  /** What the drawn pictures are compared with. */
  readonly reference: string;
  /** Drawn by each model. */
  readonly drawn: number;
  /** The same measures of real pictures that are not in the reference: no model can be expected to do better. */
  readonly real?: Pick<ComparedModel, "fid" | "kid" | "precision" | "recall" | "recognised">;
  readonly models: readonly ComparedModel[];
}

type Column = readonly [title: string, cell: (model: ComparedModel) => string];

/** Of so many digits; a dash for what is no number, which JSON keeps as null. */
const short = (value: number | null, digits: number) =>
  Number.isFinite(value) ? String(Number(value!.toPrecision(digits))) : "–";
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

/** Markdown: what was compared, and a row for each model. */
export function comparisonTable(comparison: Comparison): string {
  const { data, budget, extractor, reference, drawn, real, models } = comparison;
  const validated = models.every(({ validation }) => validation !== undefined);
  const classes = models.every(({ recognised }) => recognised !== undefined);
  const columns: readonly Column[] = [
    ["model", ({ name }) => name],
    ["parameters", ({ parameters }) => `${(parameters / 1e6).toFixed(2)} M`],
    ["Gflops", ({ gflops }) => short(gflops, 3)],
    ["images", ({ images }) => images.toLocaleString("en")],
    ["minutes", ({ minutes }) => minutes.toFixed(1)],
    ["Tflop", ({ tflop }) => short(tflop, 3)],
    [
      validated ? "held-out loss" : "training loss",
      ({ validation, loss, lossKind }) =>
        `${short(validated ? validation! : loss, 3)} (${lossKind})`,
    ],
    ["FID", ({ fid }) => short(fid, 3)],
    [
      "KID × 1000",
      ({ kid, kidDeviation }) => `${short(1000 * kid, 3)} ± ${short(1000 * kidDeviation, 2)}`,
    ],
    ["precision", ({ precision }) => percent(precision)],
    ["recall", ({ recall }) => percent(recall)],
    ...(classes
      ? [["recognised", ({ recognised }: ComparedModel) => percent(recognised!)] as const]
      : []),
    ["s an image", ({ secondsAnImage, sampling }) => `${short(secondsAnImage, 2)} (${sampling})`],
  ];
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const realCells: Readonly<Record<string, string>> = real
    ? {
        model: "*real pictures*",
        FID: short(real.fid, 3),
        "KID × 1000": short(1000 * real.kid, 3),
        precision: percent(real.precision),
        recall: percent(real.recall),
        ...(real.recognised !== undefined && { recognised: percent(real.recognised) }),
      }
    : {};
  return [
    `${data}, ${budget} of training each; ${drawn.toLocaleString("en")} pictures drawn by each, against ${reference}, as ${extractor} sees them.`,
    "",
    row(columns.map(([title]) => title)),
    row(columns.map((_, i) => (i === 0 ? "---" : "---:"))),
    ...models.map((model) => row(columns.map(([, cell]) => cell(model)))),
    ...(real ? [row(columns.map(([title]) => realCells[title] ?? ""))] : []),
    "",
  ].join("\n");
}
