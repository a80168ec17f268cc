// GET /draw?prompt=a+red+heart&seed=7 answers with a PNG, drawn by the server.
import { toPng } from "patchwise/pictures";
import { finished } from "patchwise/pipelines";
import { openPipeline } from "patchwise/pipelines/node";

let opening;

export async function GET(request) {
  const { searchParams } = new URL(request.url);
  const prompt = searchParams.get("prompt") ?? "a red heart";
  const seed = Number(searchParams.get("seed") ?? 0);
  const pipeline = await (opening ??= openPipeline("emoji", { worker: true }));
  const { signal } = request;
  const [picture] = await finished(pipeline.generate({ prompt, seed, signal }));
  return new Response(await toPng(picture), { headers: { "content-type": "image/png" } });
}
