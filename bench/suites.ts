/** The suites: what is prepared for the contenders, and what is told about it. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { matmulFlops, matmulTensors, matmulWork } from "./matmul-work.ts";
import { type HostTensor, writeTensors } from "./tensor-file.ts";
import { trainFlops, trainTensors, trainWork } from "./train-work.ts";

export interface Suite {
  /** What one step is, in words. */
  readonly description: string;
  /** The numbers that define the work; contenders read them from `work.json`. */
  readonly work: object;
  readonly flops: number;
  /** What the contenders' `value`s are, which must agree. */
  readonly valueName: "loss" | "checksum";
  tensors(): Iterable<readonly [string, HostTensor]>;
}

export const suites: Readonly<Record<string, (threads: number) => Suite>> = {
  matmul: (threads) => {
    const work = matmulWork(threads);
    return {
      description: "float32 matrix products, ms of one product of each shape added up",
      work,
      flops: matmulFlops(work),
      valueName: "checksum",
      tensors: () => matmulTensors(work),
    };
  },
  train: (threads) => {
    const work = trainWork(threads);
    return {
      description: "DiT-shaped training step: forward, backward, AdamW and EMA in float32",
      work,
      flops: trainFlops(work),
      valueName: "loss",
      tensors: () => trainTensors(work),
    };
  },
};

export function writeWork(suite: Suite, workDir: string): void {
  writeFileSync(join(workDir, "work.json"), JSON.stringify(suite.work));
  writeTensors(workDir, suite.tensors());
}
