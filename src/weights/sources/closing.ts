/** What is open must be closed, also where opening the rest fails. */

export interface Closable {
  close(): Promise<void>;
}

/** What `use` makes of open files; where it fails, they are closed, with those that it added. */
export async function closingOnFailure<T>(
  opened: Closable[],
  use: (opened: Closable[]) => Promise<T>,
): Promise<T> {
  try {
    return await use(opened);
  } catch (error) {
    await closeAll(opened);
    throw error;
  }
}

export async function closeAll(opened: readonly Closable[]): Promise<void> {
  for (const each of opened) await each.close();
}
