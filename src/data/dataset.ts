/** The interface of a data set: numbered pictures with their labels and captions. */

/** The label and captions of an example. */
export interface Described {
  /** Index into the classes of the data set; undefined if the label is unknown. */
  readonly label: number | undefined;
  /** Alternative captions of the picture; empty if it has none. */
  readonly captions: readonly string[];
}

export interface Example extends Described {
  /** [height, width, channels] in the requested shape, row-major; for clips any number of frames of them, one after another. */
  readonly pixels: Uint8Array;
}

/** The result of reading all labels and captions before a training. */
export interface Survey {
  /** Captions at even distances, not all of a large data set. */
  readonly captions: readonly string[];
  /** All characters of all captions, each once. */
  readonly characters: string;
  /** SHA-256 of all names, labels and captions. */
  readonly hash?: string;
  /** Sentences about files that the data set leaves out. */
  readonly notes: readonly string[];
}

/** The characters of texts, each once, sorted. */
export function charactersOf(texts: Iterable<string>): string {
  const found = new Set<string>();
  for (const text of texts) for (const each of text) found.add(each);
  return [...found].sort().join("");
}

export interface DataSet {
  /** How messages name the data set: a path, or "emoji". */
  readonly name: string;
  readonly count: number;
  readonly classes: readonly string[] | undefined;
  readonly captioned: boolean;
  /** The number of pictures held out of all, for a part of a data set; 0 if they are too few for that. */
  readonly heldOut?: number | undefined;
  /** The most bytes of pictures that the data set keeps in memory; lists of files are not counted. */
  readonly memory?: number;
  readonly notes?: Survey["notes"];
  readonly survey?: Survey;
  /** Reads the label and captions of an example, without decoding its picture. */
  readonly described?: (index: number) => Promise<Described>;
  /** The file or item of an example, for messages. */
  nameOf(index: number): string;
  /** @throws FormatError that names the example if it cannot be read */
  example(index: number): Promise<Example>;
  close(): Promise<void>;
}
