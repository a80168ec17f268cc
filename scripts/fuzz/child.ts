/**
 * Feeds damaged files to one target, in a process of its own that may hang or die: `scripts/fuzz.ts` watches it.
 */
import { openSync, writeSync } from "node:fs";
import { damaged } from "./mutations.ts";
import { BROKEN, type Report, type Task } from "./task.ts";
import { flawOf, kindOf, type OpenTarget } from "./target.ts";

/** Flaws after which a child gives up: a broken reader would fill the disk with them. */
const MOST_FLAWS = 50;

const peakMemory = () => process.resourceUsage().maxRSS * 1024;

/** Seconds of processor time that this process has taken. */
function worked(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

async function work(task: Task): Promise<void> {
  const { open } = (await import(task.target)) as { open: OpenTarget };
  const target = await open(task.folder);
  const progress = openSync(task.progress, "r+");
  const place = new Float64Array(1);
  const send = (report: Report) => process.send!(report);
  const kinds = new Set<string>();
  let [index, accepted, flaws, slowest] = [task.from, 0, 0, 0];
  // Sound files first: a target that refuses what it should read tests nothing.
  for (const [i, sound] of target.sound.entries()) {
    try {
      await target.read(sound);
    } catch (error) {
      throw new Error(`sound file ${i} of ${task.target} is refused`, { cause: error });
    }
  }
  const before = worked();
  let spent = before;
  for (; index < task.from + task.count && Date.now() < task.until; index++) {
    place[0] = index;
    writeSync(progress, place, 0, 8, 0);
    let flaw: string | undefined;
    try {
      await target.read(damaged(target, task.seed, index));
      accepted++;
    } catch (error) {
      flaw = flawOf(error);
      if (flaw === undefined) kinds.add(kindOf((error as Error).message));
    }
    const now = worked();
    [slowest, spent] = [Math.max(slowest, now - spent), now];
    const memory = peakMemory();
    if (memory > task.memory) flaw ??= `the process has ${Math.round(memory / 2 ** 20)} MiB`;
    if (flaw === undefined) continue;
    send({ kind: "flaw", index, flaw });
    // The peak does not fall again, so whatever comes next needs a fresh process.
    if (++flaws === MOST_FLAWS || memory > task.memory) {
      index++;
      break;
    }
  }
  const cpu = worked() - before;
  const memory = peakMemory();
  send({ kind: "end", next: index, accepted, kinds: kinds.size, memory, cpu, slowest });
}

process.once("message", (task: Task) => {
  work(task).then(
    () => process.disconnect(),
    (error: unknown) => {
      console.error(error);
      process.exit(BROKEN);
    },
  );
});
