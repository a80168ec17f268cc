/** What the prior of the bundled model decides on: subject, style, colour and companion. */
import { useEffect, useState } from "preact/hooks";
import { language, t } from "../language.ts";
import type { StringKey } from "../strings.ts";

/** An emoji with its English and its Chinese name. */
type Subject = readonly [emoji: string, en: string, zh: string];

let loading: Promise<readonly Subject[]> | undefined;
function subjects(): Promise<readonly Subject[]> {
  return (loading ??= fetch(new URL("subjects.json", document.baseURI)).then(
    (response) => response.json() as Promise<readonly Subject[]>,
  ));
}

/** As `scripts/emoji/pictures.ts` numbers them. */
const styles = ["Noto", "Fluent", "Twemoji", "EmojiOne"];
const colours = [
  "red",
  "orange",
  "yellow",
  "green",
  "blue",
  "purple",
  "pink",
  "brown",
  "black",
  "white",
  "grey",
] as const;

const SHOWN = 3;

interface Row {
  readonly name: string;
  readonly share: number;
}

export function Choices({ choices }: { readonly choices: Readonly<Record<string, Float32Array>> }) {
  const [names, setNames] = useState<readonly Subject[]>([]);
  useEffect(() => {
    subjects().then(setNames, () => undefined);
  }, []);
  const subject = (i: number) => {
    const found = names[i];
    return found ? `${found[0]} ${language.get() === "zh" ? found[2] : found[1]}` : `#${i}`;
  };
  const nameOf: Readonly<Record<string, (i: number) => string>> = {
    subject,
    style: (i) => styles[i]!,
    colour: (i) => t(i === 0 ? "colour.own" : (`colour.${colours[i - 1]!}` as StringKey)),
    companion: (i) => (i === 0 ? t("companion.none") : subject(i - 1)),
  };
  return (
    <dl class="choices">
      {Object.entries(nameOf).map(([what, name]) => {
        const shares = choices[what];
        if (!shares) return null;
        return (
          <div key={what}>
            <dt>{t(`choice.${what}` as StringKey)}</dt>
            <dd>
              {largest(shares, name).map((row) => (
                <Bar key={row.name} {...row} />
              ))}
            </dd>
          </div>
        );
      })}
    </dl>
  );
}

function Bar({ name, share }: Row) {
  return (
    <p class="bar" style={{ "--share": `${100 * share}%` }}>
      <span>{name}</span>
      <output>{`${(100 * share).toFixed(share > 0.999 ? 0 : 1)} %`}</output>
    </p>
  );
}

/** The largest shares that are worth showing. */
function largest(shares: Float32Array, name: (i: number) => string): readonly Row[] {
  return [...shares.keys()]
    .sort((a, b) => shares[b]! - shares[a]!)
    .slice(0, SHOWN)
    .filter((i, rank) => rank === 0 || shares[i]! > 0.0005)
    .map((i) => ({ name: name(i), share: shares[i]! }));
}
