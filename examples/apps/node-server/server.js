// GET /?prompt=a+red+heart&seed=7 answers with a PNG; a request that the client ends stops drawing.
import { createServer } from "node:http";
import { toPng } from "patchwise/pictures";
import { finished } from "patchwise/pipelines";
import { openPipeline } from "patchwise/pipelines/node";

const pipeline = await openPipeline("emoji", { worker: true });

async function answer({ url }, response) {
  const { pathname, searchParams } = new URL(url, "http://localhost");
  if (pathname === "/ping") return response.end("pong");
  const stopping = new AbortController();
  response.on("close", () => stopping.abort());
  try {
    const prompt = searchParams.get("prompt") ?? "a red heart";
    const seed = Number(searchParams.get("seed") ?? 0);
    const { signal } = stopping;
    const [picture] = await finished(pipeline.generate({ prompt, seed, signal }));
    response.setHeader("content-type", "image/png").end(await toPng(picture));
  } catch (error) {
    if (stopping.signal.aborted) return;
    response.writeHead(error.name === "UsageError" ? 400 : 500).end(error.message);
  }
}

const server = createServer((request, response) => void answer(request, response));
server.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
