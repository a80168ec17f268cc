/** JSON as Python writes it, which has NaN and the infinities among its numbers. */

/** Strings are passed over, so that nothing in them is replaced. */
const tokens = /"(?:[^"\\]|\\.)*"|-?Infinity|NaN/g;

/**
 * Parses JSON in which numbers may be `Infinity`, `-Infinity` or `NaN`.
 *
 * @param nan what NaN becomes; text, which no setting takes for a number, unless given
 * @throws SyntaxError if it is not even that
 */
export function parsePythonJson(text: string, nan: "NaN" | null = "NaN"): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const standard = text.replace(tokens, (token) =>
      token.startsWith('"')
        ? token
        : token === "NaN"
          ? JSON.stringify(nan)
          : token.replace("Infinity", "1e999"),
    );
    // The error for the text as it is names its own positions.
    if (standard === text) throw error;
    return JSON.parse(standard);
  }
}
