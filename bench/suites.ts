/** The benchmark suites: their work, descriptions and numbers of steps. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ContenderName } from "./roster.ts";
import { matmulFlops, matmulTensors, matmulWork } from "./matmul-work.ts";
import { loraFlops, loraTensors, loraWork } from "./lora-work.ts";
import { emojiFlops, emojiTensors, emojiWork } from "./emoji-work.ts";
import { trainedSampleTensors, trainedSampleWork } from "./trained-sample.ts";
import { sampleFlops, sampleTensors, sampleWork } from "./sample-work.ts";
import { describeSettings, isApproximate, type Settings } from "./settings.ts";
import { sd3Flops, sd3Tensors, sd3Work } from "./sd3-work.ts";
import { type HostTensor, writeTensors } from "./tensor-file.ts";
import { trainFlops, trainTensors, trainWork } from "./train-work.ts";

export interface Suite {
  /** Describes one step. */
  readonly description: string;
  /** The numbers that define the work; contenders read them from `work.json`. */
  readonly work: object;
  readonly flops: number;
  /** The same for each part of a step, if it has parts. */
  readonly partFlops?: Readonly<Record<string, number>>;
  /** The part that the report divides the times of all parts by. */
  readonly relativeTo?: string;
  /** The default number of timed rounds. */
  readonly rounds: number;
  /** The number of untimed steps before them. */
  readonly warmups: number;
  /** A peer whose timed steps have taken longer than this in total takes no more, after a minimum number. */
  readonly patienceMs: number;
  /** The meaning of the contenders' `value`s, which must agree. */
  readonly valueName: "loss" | "checksum";
  /** The reasons why contenders of other suites do not take part in this one. */
  readonly absent?: Partial<Readonly<Record<ContenderName, string>>>;
  /** Settings that ours may be given. */
  readonly takes?: readonly (keyof Settings)[];
  /** Whether it can use the weights of a trained model. */
  readonly takesModel?: boolean;
  /** Whether its network can have another number of blocks. */
  readonly takesDepth?: boolean;
  /** Whether ours computes approximately, so that the results of others need not be equal to it. */
  readonly approximate?: boolean;
  tensors(): Iterable<readonly [string, HostTensor]> | AsyncIterable<readonly [string, HostTensor]>;
}

/** Two, because on some machines the heap still grows in the second step. */
const warmups = 2;
const patienceMs = 30_000;

/** The contender that is ours without approximations has something to show only beside them. */
function exactIn(settings: Settings): Suite["absent"] {
  return isApproximate(settings) ? {} : { float32: "ours computes in float32 itself" };
}

const tooSlow = "its products take several times as long (suite matmul), 50 steps many minutes";

/** What a suite is made with. */
interface SuiteOptions {
  /** A folder with trained weights. */
  readonly model?: string | undefined;
  /** Blocks of the network; its own number unless given. */
  readonly depth?: number | undefined;
}

type MakeSuite = (threads: number, settings: Settings, options?: SuiteOptions) => Suite;

export const suites: Readonly<Record<string, MakeSuite>> = {
  matmul: (threads) => {
    const work = matmulWork(threads);
    const partFlops = matmulFlops(work);
    return {
      description: "float32 matrix products, ms of one product of each shape added up",
      work,
      flops: total(partFlops),
      partFlops,
      rounds: 10,
      warmups,
      patienceMs,
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
      rounds: 10,
      warmups,
      patienceMs,
      valueName: "loss",
      tensors: () => trainTensors(work),
    };
  },
  lora: (threads) => {
    const work = loraWork(threads);
    const { forward, step } = loraFlops(work);
    return {
      description:
        "a training step of a LoRA on the DiT of train, beside a forward pass, in float32",
      work,
      flops: step,
      partFlops: { forward, step },
      relativeTo: "forward",
      rounds: 8,
      warmups,
      patienceMs,
      valueName: "loss",
      tensors: () => loraTensors(work),
    };
  },
  sample: (threads, settings, { model } = {}) => {
    const random = sampleWork(threads);
    const plain = model === undefined ? random : trainedSampleWork(random, model);
    const work = { ...plain, ...settings };
    const partFlops = sampleFlops(work);
    return {
      description: `${work.stride} of ${work.steps} Euler steps with guidance of a DiT-S/2 in float32, for each batch size${describeSettings(settings)}`,
      work,
      flops: total(partFlops),
      partFlops,
      rounds: model === undefined ? work.steps / work.stride : 3,
      // Each contender has run the network for each batch size.
      warmups: 0,
      patienceMs: 600_000,
      valueName: "checksum",
      absent: { "jax-js": tooSlow, tfjs: tooSlow, ...exactIn(settings) },
      takes: ["compute", "cache"],
      takesModel: true,
      approximate: isApproximate(settings),
      tensors: () =>
        model === undefined ? sampleTensors(work) : trainedSampleTensors(work, model),
    };
  },
  emoji: (threads, settings) => {
    const work = { ...emojiWork(threads), ...settings };
    const partFlops = emojiFlops(work);
    return {
      description: `pictures of the bundled model in ${work.steps} Euler steps, without guidance, for each batch size${describeSettings(settings)}`,
      work,
      flops: total(partFlops),
      partFlops,
      rounds: 5,
      // Each contender has drawn each batch once.
      warmups: 0,
      patienceMs: 600_000,
      valueName: "checksum",
      absent: { ...exactIn(settings) },
      takes: ["compute", "cache"],
      approximate: isApproximate(settings),
      tensors: () => emojiTensors(work),
    };
  },
  sd3: (threads, settings, { depth } = {}) => {
    const work = { ...sd3Work(threads, depth), ...settings };
    const partFlops = sd3Flops(work);
    return {
      description: `a step of Stable Diffusion 3 medium with guidance at ${16 * work.side}×${16 * work.side} pixels in float32; peers run one block, and the step is ${work.depth} times that${describeSettings(settings)}`,
      work,
      flops: partFlops["whole step"]!,
      partFlops,
      rounds: 3,
      // Each contender has run everything once.
      warmups: 0,
      patienceMs: 600_000,
      valueName: "checksum",
      takes: ["compute"],
      takesDepth: true,
      approximate: isApproximate(settings),
      tensors: () => sd3Tensors(work),
    };
  },
};

function total(parts: Readonly<Record<string, number>>): number {
  return Object.values(parts).reduce((sum, flops) => sum + flops, 0);
}

export async function writeWork(suite: Suite, workDir: string): Promise<void> {
  writeFileSync(join(workDir, "work.json"), JSON.stringify(suite.work));
  await writeTensors(workDir, suite.tensors());
}
