/** What a data set is to whoever trains or measures on it: numbered pictures, with what is known of each. */

export interface Example {
  /** [height, width, channels] of the shape that was asked for, row-major. */
  readonly pixels: Uint8Array;
  /** Index into the data set's classes; undefined where none is known. */
  readonly label: number | undefined;
  /** What it shows, in different words; empty where nothing says it. */
  readonly captions: readonly string[];
}

export interface DataSet {
  /** What a person calls it: a path, or "emoji". */
  readonly name: string;
  readonly count: number;
  readonly classes: readonly string[] | undefined;
  readonly captioned: boolean;
  /** Bytes of pictures that it keeps in memory at most; a list of files counts as none. */
  readonly memory?: number;
  /** The file or item behind an example, for messages. */
  nameOf(index: number): string;
  /** @throws FormatError that names what cannot be read */
  example(index: number): Promise<Example>;
  close(): Promise<void>;
}
