/**
 * `npm run demo`, or `npm run demo -- "sad face"`, draws a prompt with the bundled model and writes `demo.png`.
 *
 * It uses the library to do the same as `patchwise generate`.
 */
import { pictureGrid } from "patchwise/pictures";
import { writePicture } from "patchwise/pictures/node";
import { openPipeline } from "patchwise/pipelines/node";

const options = process.argv.slice(2).filter((word) => word.startsWith("-"));
if (options.length > 0) {
  const isHelp = options.every((option) => option === "--help" || option === "-h");
  console[isHelp ? "log" : "error"](
    isHelp
      ? 'npm run demo -- "sad face" draws the prompt four times, with "smiling face" unless one is given, and writes demo.png.'
      : `The demo has no option ${options[0]}; use patchwise generate for more than a prompt.`,
  );
  process.exit(isHelp ? 0 : 2);
}
const prompt = process.argv.slice(2).join(" ") || "smiling face";
const pipeline = await openPipeline("emoji", { device: "cpu" });
console.log(`Drawing ${JSON.stringify(prompt)} four times with the model "${pipeline.name}" …`);
const drawing = pipeline.generate({ prompt, count: 4, seed: 1 });
for (;;) {
  const next = await drawing.next();
  if (next.done) {
    await writePicture("demo.png", pictureGrid(next.value, 2, { scale: 4, gap: 4 }));
    break;
  }
  const { step, steps } = next.value;
  if (step % 10 === 0) console.log(`step ${step} of ${steps}`);
}
await pipeline.dispose();
console.log("Wrote demo.png.");
