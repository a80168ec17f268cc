/** Work beside a training, such as measuring: its failure must not cost the weights. */

/** Something that the training goes on without. */
export interface Warning {
  readonly kind: "warning";
  readonly message: string;
}

/** Returns a function that wraps work which is worth less than the weights: its failure is reported once, and the training goes on. */
export function besideTraining(report: (event: Warning) => void) {
  const said = new Set<string>();
  return <A extends readonly unknown[]>(what: string, work: (...given: A) => Promise<unknown>) =>
    async (...given: A): Promise<void> => {
      try {
        await work(...given);
      } catch (error) {
        const message = `${what} failed, and the training goes on without it: ${(error as Error).message}`;
        if (!said.has(message)) report({ kind: "warning", message });
        said.add(message);
      }
    };
}
