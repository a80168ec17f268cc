/** The pictures to train on, whose captions are edited in a table. */
import { useRef, useState } from "preact/hooks";
import { t } from "../language.ts";
import { Pixels } from "../parts/pixels.tsx";
import { examplesOf, type TrainingExample } from "./examples.ts";
import { shapeExamples } from "./shapes.ts";

interface TableProps {
  readonly examples: readonly TrainingExample[];
  readonly side: number;
  readonly onExamples: (examples: readonly TrainingExample[]) => void;
}

export function ExampleTable(props: TableProps) {
  return (
    <>
      <Choosing {...props} />
      {props.examples.length > 0 && <Captions {...props} />}
    </>
  );
}

/** Where pictures are dropped, and the buttons that choose, make and remove them. */
function Choosing({ examples, side, onExamples }: TableProps) {
  const input = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);
  const add = async (files: Iterable<File>) => {
    setOver(false);
    onExamples([...examples, ...(await examplesOf(files, side))]);
  };
  return (
    <div
      class={`dropzone${over ? " over" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        void add([...(event.dataTransfer?.files ?? [])]);
      }}
    >
      <p>{t("train.drop")}</p>
      <div class="actions">
        <button type="button" onClick={() => input.current?.click()}>
          {t("train.choose")}
        </button>
        <button type="button" onClick={() => onExamples(shapeExamples(side))}>
          {t("train.shapes")}
        </button>
        {examples.length > 0 && (
          <button type="button" class="quiet" onClick={() => onExamples([])}>
            {t("train.clear")}
          </button>
        )}
      </div>
      <input
        ref={input}
        type="file"
        accept="image/*"
        multiple
        class="visually-hidden"
        tabIndex={-1}
        aria-label={t("train.choose")}
        onChange={({ currentTarget }) => void add([...(currentTarget.files ?? [])])}
      />
    </div>
  );
}

function Captions({ examples, onExamples }: TableProps) {
  const caption = (at: number, text: string) =>
    onExamples(examples.map((each, i) => (i === at ? { ...each, caption: text } : each)));
  return (
    <div class="examples table-scroll" tabIndex={0} role="region" aria-label={t("train.captions")}>
      <table>
        <thead>
          <tr>
            <th scope="col">{t("train.picture")}</th>
            <th scope="col">{t("train.caption")}</th>
            <td />
          </tr>
        </thead>
        <tbody>
          {examples.map((example, i) => (
            <tr key={i}>
              <td>
                <Pixels picture={example.picture} />
              </td>
              <td>
                <input
                  aria-label={t("train.caption.of", { number: i + 1 })}
                  value={example.caption}
                  onInput={({ currentTarget }) => caption(i, currentTarget.value)}
                />
              </td>
              <td>
                <button
                  type="button"
                  class="quiet"
                  aria-label={t("train.remove", { number: i + 1 })}
                  onClick={() => onExamples(examples.filter((_, other) => other !== i))}
                >
                  ×
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
