/** The entry of the threads that weight-writer-node.ts starts. */
import { parentPort, workerData } from "node:worker_threads";
import {
  type FromWriter,
  openToWrite,
  type WeightGroup,
  writeGroup,
  type WrittenFile,
} from "./weight-writer-node.ts";
import { failure } from "./worker-protocol.ts";

const file = workerData as WrittenFile;
const handle = openToWrite(file);
const tell = (message: FromWriter) => parentPort!.postMessage(message, []);

parentPort!.on("message", (group: WeightGroup) => {
  handle
    .then((open) => writeGroup(open, file, group))
    .then(
      () => tell({ kind: "written" }),
      (error: unknown) => tell(failure(error)),
    );
});
