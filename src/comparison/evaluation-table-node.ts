/** The results of an evaluation, as a table in Markdown. */
import { OBEYED } from "../evaluation/colour.ts";
import type { Accuracy } from "../evaluation/retrieval.ts";
import type { Evaluation } from "./evaluate-node.ts";
import type { Scores, Share } from "./prompt-scores-node.ts";
import { percent, short } from "./table.ts";

const languages: Readonly<Record<string, string>> = { en: "English", zh: "Chinese" };

/** A row of the table: its title, the number of prompts, and the cell for given scores. */
interface Row {
  readonly title: string;
  readonly prompts: number | undefined;
  readonly cell: (scores: Scores) => string;
}

const accuracy = ({ top1, top5 }: Accuracy) => `${percent(top1)} / ${percent(top5)}`;

/** Returns Markdown with a row for each measure, with the same measure of real pictures beside it. */
export function evaluationTable(evaluation: Evaluation): string {
  const { model, prompts, judge, real } = evaluation;
  const rows: readonly Row[] = [
    { title: "**top-1 / top-5**, all prompts", prompts, cell: accuracy },
    ...accuracyRows(evaluation.byLang, (scores) => scores.byLang, languageOf),
    ...Object.entries(evaluation.byKind).flatMap(([kind, own]) => [
      ...accuracyRows(
        { [kind]: own },
        ({ byKind }) => byKind,
        () => `**${kind}**`,
      ),
      ...accuracyRows(
        own.byLang,
        ({ byKind }) => byKind[kind]!.byLang,
        (lang) => `${kind}, ${languageOf(lang)}`,
      ),
    ]),
    ...accuracyRows(
      evaluation.byForm,
      (scores) => scores.byForm,
      (form) => `form: ${form}`,
    ),
    ...shareRow("colour obeyed", evaluation.colour, (scores) => scores.colour),
    ...shareRow("style obeyed", evaluation.style, (scores) => scores.style),
    { title: "FID", prompts, cell: ({ fid }) => short(fid) },
    {
      title: "KID × 1000",
      prompts,
      cell: ({ kid, kidDeviation }) =>
        kid === null ? "–" : `${short(1000 * kid)} ± ${short(1000 * kidDeviation!, 2)}`,
    },
    { title: "precision", prompts, cell: ({ precision }) => share(precision) },
    { title: "recall", prompts, cell: ({ recall }) => share(recall) },
    {
      title: "median distance to the nearest training picture",
      prompts,
      cell: ({ memorisation }) => short(memorisation.median),
    },
    {
      title: "nearer to one than 95 % of held-out pictures",
      prompts,
      cell: ({ memorisation }) => percent(memorisation.copies),
    },
  ];
  return [
    `| measure | prompts | ${model} | *real pictures* |`,
    "| --- | ---: | ---: | ---: |",
    ...rows.map(
      ({ title, prompts: count, cell }) =>
        `| ${title} | ${count ?? ""} | ${cell(evaluation)} | ${cell(real)} |`,
    ),
    "",
    `Judge: ${judge.name}. It recognises ${accuracy({ prompts: 0, top1: judge.realTop1, top5: judge.realTop5 })} (top-1 / top-5) of ${judge.realPictures.toLocaleString("en")} real pictures in a style that it never saw (${judge.realStyle}), ${accuracy({ prompts: 0, top1: judge.damagedTop1, top5: judge.damagedTop5 })} of blurred, moved and noisy ones, and the style of ${percent(judge.damagedStyle)} of these. A prompt's answer is right if the nearest real emoji, or one of the five nearest, is among the prompt's answers.`,
    `FID, KID, precision and recall compare the features of this judge, not of Inception: they must not be compared with published figures.`,
    `A colour is obeyed if at least ${percent(OBEYED)} of the object's pixels have it. Held-out real pictures have a median distance of ${short(evaluation.memorisation.heldOutMedian)} to the nearest training picture. In the column *real pictures*, a real picture of a right answer stands in the place of each drawing and is itself left out of the comparison: this is how a right drawing scores that resembles no known picture closely. A closer one scores higher.`,
    "",
  ].join("\n");
}

const languageOf = (lang: string) => languages[lang] ?? lang;
const share = (value: number | null) => (value === null ? "–" : percent(value));

function accuracyRows(
  groups: Readonly<Record<string, Accuracy>>,
  pick: (scores: Scores) => Readonly<Record<string, Accuracy>>,
  titleOf: (name: string) => string,
): readonly Row[] {
  return Object.entries(groups).map(([name, { prompts }]) => ({
    title: titleOf(name),
    prompts,
    cell: (scores) => accuracy(pick(scores)[name]!),
  }));
}

function shareRow(
  title: string,
  own: Share | null,
  pick: (scores: Scores) => Share | null,
): readonly Row[] {
  if (!own) return [];
  return [{ title, prompts: own.prompts, cell: (scores) => share(pick(scores)?.share ?? null) }];
}
