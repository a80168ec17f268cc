/** Shows the progress of a download as a line on stderr. */
import type { HubProgress } from "../weights/hub/hub-node.ts";
import { progressWriter } from "./progress.ts";

/** Runs `work` with a callback that shows the progress of a download. */
export async function showingDownload<T>(
  model: string,
  work: (onProgress: (progress: HubProgress) => void) => Promise<T>,
): Promise<T> {
  const line = progressWriter(process.stderr);
  let begun: { readonly at: number; readonly done: number } | undefined;
  try {
    return await work(({ file, done, total, files }) => {
      const now = performance.now();
      begun ??= { at: now, done };
      const speed = ((done - begun.done) * 1000) / (now - begun.at);
      const rest = speed > 0 ? `, ${((total - done) / speed).toFixed(0)} s left` : "";
      line.update(
        `${model}: ${megabytes(done)} of ${megabytes(total)} MB in ${files} files${rest} (${file})`,
      );
    });
  } finally {
    line.end();
  }
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(bytes < 10e6 ? 1 : 0);
}
