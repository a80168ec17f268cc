/** Closes what was opened, including when a later step fails. */

export interface Closable {
  close?(): Promise<void>;
}

/** Calls `use` with a list of open files, to which it may add. If it fails, all of them are closed. */
export async function closingOnFailure<T, C extends Closable = Closable>(
  opened: C[],
  use: (opened: C[]) => Promise<T>,
): Promise<T> {
  try {
    return await use(opened);
  } catch (error) {
    await closeAll(opened);
    throw error;
  }
}

/** Calls `use` with something open, which is closed in any case. */
export async function closing<C extends Closable, T>(
  opened: C,
  use: (opened: C) => Promise<T>,
): Promise<T> {
  try {
    return await use(opened);
  } finally {
    await opened.close?.();
  }
}

export async function closeAll(opened: readonly Closable[]): Promise<void> {
  for (const each of opened) await each.close?.();
}
