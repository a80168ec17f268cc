/** Fields of forms: native elements with their labels. */
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

interface RangeProps {
  readonly label: string;
  readonly value: number;
  readonly min: number;
  readonly max: number;
  readonly step?: number;
  readonly shown?: string | undefined;
  readonly hint?: string | undefined;
  readonly onInput: (value: number) => void;
}

export function Range({ label, value, shown, hint, onInput, ...bounds }: RangeProps) {
  const id = useId();
  const share = (value - bounds.min) / (bounds.max - bounds.min);
  return (
    <div class="field">
      <div class="field-head">
        <label for={id}>{label}</label>
        <output for={id}>{shown ?? value}</output>
      </div>
      <input
        id={id}
        type="range"
        value={value}
        {...bounds}
        style={{ "--share": `${100 * share}%` }}
        onInput={({ currentTarget }) => onInput(Number(currentTarget.value))}
      />
      {hint !== undefined && <p class="hint">{hint}</p>}
    </div>
  );
}

interface SelectProps {
  readonly label: string;
  readonly value: string;
  readonly options: readonly (readonly [value: string, shown: string])[];
  readonly onInput: (value: string) => void;
}

export function Select({ label, value, options, onInput }: SelectProps) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select id={id} value={value} onInput={({ currentTarget }) => onInput(currentTarget.value)}>
        {options.map(([each, shown]) => (
          <option key={each} value={each} selected={each === value}>
            {shown}
          </option>
        ))}
      </select>
    </div>
  );
}

interface FieldProps {
  readonly label: string;
  readonly children: (id: string) => ComponentChildren;
  readonly hint?: string;
}

export function Field({ label, children, hint }: FieldProps) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children(id)}
      {hint !== undefined && <p class="hint">{hint}</p>}
    </div>
  );
}

interface ChoiceProps<T extends string> {
  readonly label: string;
  readonly value: T;
  readonly options: readonly (readonly [value: T, shown: string])[];
  readonly onInput: (value: T) => void;
}

/** A choice of few: radio buttons that look like one control. */
export function Choice<T extends string>({ label, value, options, onInput }: ChoiceProps<T>) {
  const name = useId();
  return (
    <fieldset class="choice">
      <legend class="visually-hidden">{label}</legend>
      {options.map(([each, shown]) => (
        <label key={each} class={each === value ? "chosen" : ""}>
          <input
            type="radio"
            name={name}
            value={each}
            checked={each === value}
            onChange={() => onInput(each)}
          />
          {shown}
        </label>
      ))}
    </fieldset>
  );
}
