/** The picture that a drawing starts from, and the part of it that is drawn anew. */
import { useRef, useState } from "preact/hooks";
import { t } from "../language.ts";
import { Range } from "../parts/fields.tsx";
import { pictureOfFile } from "../parts/files.ts";
import type { Settings } from "../settings.ts";
import { Brush } from "./brush.tsx";

interface StartProps {
  readonly now: Settings;
  readonly set: (fields: Partial<Settings>) => void;
}

export function StartPicture({ now, set }: StartProps) {
  const input = useRef<HTMLInputElement>(null);
  const { image, strength, width, height } = now;
  const [problem, setProblem] = useState<string>();
  const read = async (file: File | undefined) => {
    setProblem(undefined);
    if (!file) return;
    try {
      set({ image: await pictureOfFile(file, width, height), mask: undefined });
    } catch {
      setProblem(t("start.unread", { name: file.name }));
    }
  };
  return (
    <details class="fold" open={image !== undefined}>
      <summary>{t("start.title")}</summary>
      <div class="fold-body">
        <p class="hint">{t("start.hint")}</p>
        <input
          ref={input}
          type="file"
          accept="image/*"
          class="visually-hidden"
          tabIndex={-1}
          aria-label={t("start.choose")}
          data-purpose="start"
          onChange={({ currentTarget }) => {
            void read(currentTarget.files?.[0]);
            // The same file can be chosen again.
            currentTarget.value = "";
          }}
        />
        <div class="actions">
          <button type="button" onClick={() => input.current?.click()}>
            {t("start.choose")}
          </button>
          {image && (
            <button type="button" onClick={() => set({ image: undefined, mask: undefined })}>
              {t("start.remove")}
            </button>
          )}
        </div>
        {problem !== undefined && (
          <p class="problem" role="alert">
            {problem}
          </p>
        )}
        {image && (
          <>
            <Brush
              image={image}
              mask={now.mask}
              onMask={(mask) => set({ mask, ...(mask && !now.mask && { strength: 1 }) })}
            />
            <Range
              label={t("strength")}
              value={strength}
              min={0.05}
              max={1}
              step={0.05}
              shown={`${Math.round(100 * strength)} %`}
              hint={t("strength.hint")}
              onInput={(value) => set({ strength: value })}
            />
          </>
        )}
      </div>
    </details>
  );
}
