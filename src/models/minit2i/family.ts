/** MiniT2I as a model family. */
import type { NetworkFamily } from "../family.ts";
import { diffusersMiniT2IKeys, miniT2IConfig } from "./checkpoint.ts";
import { checkMiniT2I, type MiniT2IConfig, miniT2IPresets, miniT2ISchema } from "./config.ts";
import { miniT2I } from "./minit2i.ts";

export const miniT2IFamily: NetworkFamily<MiniT2IConfig> = {
  kind: "minit2i",
  title: "MiniT2I",
  schema: miniT2ISchema,
  check: checkMiniT2I,
  presets: miniT2IPresets,
  trace: miniT2I,
  sizes: ({ patch }) => ({ unit: patch, fixed: false }),
  patches: ({ patch }, [height, width]) => (height / patch) * (width / patch),
  diffusers: {
    className: "MiniT2IMMJiTModel",
    config: miniT2IConfig,
    keys: diffusersMiniT2IKeys,
    weights: (weights) => weights,
    namesLora: false,
  },
  recorded: {
    name: "minit2i",
    config: miniT2IConfig,
    inputs: () => ({ x: "img", t: "t", y: "context", mask: "mask" }),
    output: "x0",
    gradientsOf: "all cases",
  },
};
