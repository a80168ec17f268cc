/** Draw: the form, the picture as it forms, and what was drawn before. */
import { useState } from "preact/hooks";
import { draw, drawingState } from "../drawing.ts";
import { t } from "../language.ts";
import { helperWorker } from "../engine.ts";
import { settings, settingsOfMetadata } from "../settings.ts";
import { useStore } from "../store.ts";
import { HistoryStrip } from "./history-strip.tsx";
import { SettingsForm } from "./settings-form.tsx";
import { Stage } from "./stage.tsx";

export function DrawView() {
  const { drawing } = useStore(drawingState);
  const [over, setOver] = useState(false);
  const [told, setTold] = useState<string>();
  const drop = async (files: FileList | undefined) => {
    setOver(false);
    const [file] = files ?? [];
    if (!file) return;
    try {
      const bytes = new Uint8Array(await file.arrayBuffer());
      const metadata = await helperWorker().call("metadata", { bytes });
      settings.patch(settingsOfMetadata(metadata));
      setTold(t("recovered", { name: file.name }));
    } catch (error) {
      setTold((error as Error).message);
    }
  };
  return (
    <div
      class={`draw${over ? " over" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={(event) => {
        if (event.currentTarget === event.target) setOver(false);
      }}
      onDrop={(event) => {
        event.preventDefault();
        void drop(event.dataTransfer?.files);
      }}
    >
      <section class="panel" aria-labelledby="draw-title">
        <h1 id="draw-title">{t("draw.title")}</h1>
        <SettingsForm onRead={(files) => void drop(files)} />
      </section>
      <section class="stage-column" aria-label={t("draw.pictures")}>
        <p class="told" role="status">
          {told}
        </p>
        <Stage drawing={drawing} onAgain={(next) => void draw(next)} />
        <HistoryStrip />
      </section>
    </div>
  );
}
