/** What was drawn before; a click brings its settings back. */
import { forget, history, type Remembered } from "../history.ts";
import { language, t } from "../language.ts";
import { Pixels } from "../parts/pixels.tsx";
import { settings } from "../settings.ts";
import { useStore } from "../store.ts";

export function HistoryStrip() {
  const all = useStore(history);
  if (all.length === 0) return null;
  return (
    <section class="history" aria-labelledby="history-title">
      <h2 id="history-title">{t("history")}</h2>
      <ul>
        {all.map((each) => (
          <HistoryItem key={each.time} item={each} />
        ))}
      </ul>
    </section>
  );
}

function HistoryItem({ item }: { readonly item: Remembered }) {
  const { asked, pictures, resolved, time } = item;
  const when = new Date(time).toLocaleString(language.get(), {
    dateStyle: "short",
    timeStyle: "short",
  });
  const label = t("history.item", {
    prompt: asked.prompt,
    seed: resolved.seed,
    steps: resolved.steps,
    when,
  });
  return (
    <li>
      <button
        type="button"
        class="frame"
        aria-label={label}
        title={label}
        onClick={() => settings.set(asked)}
      >
        <Pixels picture={pictures[0]!} />
      </button>
      <button
        type="button"
        class="forget"
        aria-label={t("history.forget", { prompt: asked.prompt, when })}
        onClick={() => void forget(item)}
      >
        ×
      </button>
    </li>
  );
}
