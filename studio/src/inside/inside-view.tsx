/** Inside: what the model attends to while it draws, where it moves, and what guidance does. */
import { useEffect, useState } from "preact/hooks";
import { draw, type Drawing, drawingState } from "../drawing.ts";
import { model } from "../engine.ts";
import { t } from "../language.ts";
import { Choice } from "../parts/fields.tsx";
import { Pixels } from "../parts/pixels.tsx";
import { settings } from "../settings.ts";
import { useStore } from "../store.ts";
import {
  ALL_HEADS,
  type Direction,
  entropyOf,
  gridOf,
  type PatchGrid,
  rowSum,
  sharesOf,
} from "./attention.ts";
import { AttentionPicture } from "./attention-picture.tsx";
import { Choices } from "./choices.tsx";
import { type ChosenHead, HeadGrid, Reach } from "./head-grid.tsx";
import { Heat } from "./heat.tsx";
import { type Attention, type Look, useLooks } from "./looks.ts";
import { Curves, FilmStrip, GuidanceTiles, StepTiles } from "./trajectory.tsx";

/** Milliseconds of a step when the film plays. */
const FRAME = 260;

export function InsideView() {
  const { drawing, running, problem } = useStore(drawingState);
  useStore(model);
  return (
    <div class="inside">
      <h1>{t("inside.title")}</h1>
      <p class="lead">{t("inside.lead")}</p>
      {drawing?.pictures && drawing.device === "server" ? (
        <DrawnThere drawing={drawing} running={running} problem={problem} />
      ) : drawing?.pictures ? (
        <InsideDrawing key={drawing.id} drawing={drawing} />
      ) : (
        <div class="card start">
          <p>{running ? t("drawing") : t("inside.none", { prompt: settings.get().prompt })}</p>
          <button
            type="button"
            class="primary"
            disabled={running}
            onClick={() => void draw(settings.get(), false)}
          >
            {t("inside.draw")}
          </button>
          {problem !== undefined && (
            <p class="problem" role="alert">
              {problem}
            </p>
          )}
        </div>
      )}
    </div>
  );
}

interface DrawnThereProps {
  readonly drawing: Drawing;
  readonly running: boolean;
  readonly problem: string | undefined;
}

/** A picture that the server drew, which the page can draw again to look inside. */
function DrawnThere({ drawing: { asked }, running, problem }: DrawnThereProps) {
  const { facts, served } = model.get();
  const name = asked.model || served!.models[0]!.name;
  const isOwn = name === facts?.name && asked.lora === "";
  return (
    <div class="card start">
      <p>{running ? t("drawing") : t(isOwn ? "inside.server" : "inside.other", { name })}</p>
      {isOwn && (
        <button
          type="button"
          class="primary"
          disabled={running}
          onClick={() => void draw(asked, false)}
        >
          {t("inside.draw")}
        </button>
      )}
      {problem !== undefined && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
    </div>
  );
}

function InsideDrawing({ drawing }: { readonly drawing: Drawing }) {
  const { previews, pictures, asked, resolved } = drawing;
  const [picture, setPicture] = useState(0);
  const [step, setStep] = useState(Math.floor(previews.length / 2));
  const [playing, setPlaying] = useState(false);
  const { all, problem } = useLooks(drawing, picture, step);
  const look = all[step] ?? all.find((each) => each !== undefined);
  useEffect(() => {
    if (!playing) return undefined;
    const timer = setInterval(() => setStep((now) => (now + 1) % previews.length), FRAME);
    return () => clearInterval(timer);
  }, [playing, previews.length]);
  const drawn = pictures![picture]!;
  const patches = model.get().facts?.patches ?? 0;
  const grid = gridOf(patches, drawn.width, drawn.height);
  return (
    <>
      <div class="inside-head">
        <p class="quote">“{asked.prompt}”</p>
        {pictures!.length > 1 && (
          <div class="film" role="group" aria-label={t("draw.pictures")}>
            {pictures!.map((each, i) => (
              <button
                key={each.seed}
                type="button"
                class="frame"
                aria-pressed={i === picture}
                aria-label={t("picture.label", { prompt: asked.prompt, seed: each.seed })}
                onClick={() => setPicture(i)}
              >
                <Pixels picture={each} />
              </button>
            ))}
          </div>
        )}
      </div>
      <FilmStrip
        looks={all}
        previews={previews}
        picture={picture}
        step={step}
        playing={playing}
        onStep={setStep}
        onPlay={() => setPlaying(!playing)}
      />
      {problem !== undefined && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
      {look ? (
        <LookedInto look={look} looks={all} step={step} grid={grid} guidance={resolved.guidance} />
      ) : (
        <p class="note" role="status">
          {t("inside.looking")}
        </p>
      )}
    </>
  );
}

interface LookedIntoProps {
  readonly look: Look;
  readonly looks: readonly (Look | undefined)[];
  readonly step: number;
  readonly grid: PatchGrid;
  readonly guidance: number;
}

function LookedInto({ look, looks, step, grid, guidance }: LookedIntoProps) {
  return (
    <>
      {look.attention.length > 0 && <AttentionPanel look={look} grid={grid} />}
      <section class="card" aria-labelledby="trajectory-title">
        <h2 id="trajectory-title">{t("inside.trajectory")}</h2>
        <div class="split">
          <StepTiles look={look} />
          <Curves looks={looks} step={step} />
        </div>
      </section>
      <div class="two">
        <section class="card" aria-labelledby="guidance-title">
          <h2 id="guidance-title">{t("inside.guidance")}</h2>
          <GuidanceTiles look={look} guidance={guidance} />
        </section>
        {Object.keys(look.choices).length > 0 && (
          <section class="card" aria-labelledby="choices-title">
            <h2 id="choices-title">{t("inside.choices")}</h2>
            <p class="hint">{t("inside.choices.hint")}</p>
            <Choices choices={look.choices} />
          </section>
        )}
      </div>
    </>
  );
}

function AttentionPanel({ look, grid }: { readonly look: Look; readonly grid: PatchGrid }) {
  const patches = grid.columns * grid.rows;
  const { attention } = look;
  const [patch, setPatch] = useState(
    Math.floor(grid.rows / 2) * grid.columns + Math.floor(grid.columns / 2),
  );
  const [direction, setDirection] = useState<Direction>("from");
  const [over, setOver] = useState<"x0" | "x">("x0");
  const [chosen, setChosen] = useState<ChosenHead>({
    layer: Math.min(2, attention.length - 1),
    head: ALL_HEADS,
  });
  const layer = attention[chosen.layer]!;
  const shares = sharesOf(layer, chosen.head, patch, patches, direction);
  return (
    <section class="card attention" aria-labelledby="attention-title">
      <div class="attention-head">
        <h2 id="attention-title">{t("inside.attention")}</h2>
        <Choice
          label={t("inside.direction")}
          value={direction}
          options={[
            ["from", t("inside.from")],
            ["to", t("inside.to")],
          ]}
          onInput={setDirection}
        />
        <Choice
          label={t("inside.over")}
          value={over}
          options={[
            ["x0", t("inside.over.x0")],
            ["x", t("inside.over.x")],
          ]}
          onInput={setOver}
        />
      </div>
      <div class="attention-body">
        <div>
          <AttentionPicture
            picture={look[over]}
            grid={grid}
            patch={patch}
            shares={shares}
            direction={direction}
            onPatch={setPatch}
          />
          <Reading
            layer={layer}
            chosen={chosen}
            patch={patch}
            shares={shares}
            direction={direction}
            grid={grid}
          />
        </div>
        <HeadGrid
          attention={attention}
          grid={grid}
          patch={patch}
          direction={direction}
          chosen={chosen}
          onChoose={setChosen}
        />
        <div class="attention-side">
          <Matrix layer={layer} head={chosen.head} patches={patches} />
          <Reach attention={attention} grid={grid} chosen={chosen} />
        </div>
      </div>
    </section>
  );
}

interface ReadingProps {
  readonly layer: Attention;
  readonly chosen: ChosenHead;
  readonly patch: number;
  readonly shares: Float32Array;
  readonly direction: Direction;
  readonly grid: PatchGrid;
}

/** The chosen patch in words and numbers. */
function Reading({ layer, chosen, patch, shares, direction, grid: { columns } }: ReadingProps) {
  const sum =
    direction === "from" ? rowSum(layer, chosen.head, patch) : shares.reduce((a, b) => a + b, 0);
  const total = shares.map((share) => share / Math.max(sum, 1e-9));
  const strongest = shares.indexOf(shares.reduce((a, b) => Math.max(a, b), 0));
  return (
    <p class="reading" aria-live="polite">
      {t(`inside.reading.${direction}`, {
        row: Math.floor(patch / columns) + 1,
        column: (patch % columns) + 1,
        spread: (2 ** entropyOf(total)).toFixed(1),
        most: (100 * shares[strongest]!).toFixed(1),
        strongest: `${Math.floor(strongest / columns) + 1}, ${(strongest % columns) + 1}`,
      })}
      <data value={sum.toFixed(6)} class="row-sum">
        {t(`inside.sum.${direction}`, { sum: sum.toFixed(3) })}
      </data>
    </p>
  );
}

/** All rows of a head. */
function Matrix({
  layer,
  head,
  patches,
}: {
  readonly layer: Attention;
  readonly head: number;
  readonly patches: number;
}) {
  const rows = [...Array(patches).keys()].map((patch) =>
    sharesOf(layer, head, patch, patches, "from"),
  );
  const whole = new Float32Array(patches * patches);
  for (const [i, row] of rows.entries()) whole.set(row, i * patches);
  return (
    <figure class="matrix">
      <Heat shares={whole} columns={patches} direction="from" label={t("inside.matrix")} />
      <figcaption>{t("inside.matrix")}</figcaption>
    </figure>
  );
}
