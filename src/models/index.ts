/** Networks that denoise, what encodes pictures and texts for them, and the table of their families. */
export { readTrainedFolder } from "./card-folder.ts";
export {
  type AutoencoderKLConfig,
  autoencoderKLPresets,
  type AutoencoderKLName,
} from "./coders/autoencoder-kl-config.ts";
export { decodeLatents, encodeImages, type Posterior } from "./coders/autoencoder-kl.ts";
export { chunkCoder, type ChunkCoder, joinFrames, type RunChunk } from "./coders/video-chunks.ts";
export {
  type VideoAutoencoderConfig,
  videoAutoencoderPresets,
} from "./coders/video-autoencoder-config.ts";
export { videoAutoencoderParams, type Direction } from "./coders/video-autoencoder.ts";
export {
  decodeQuantized,
  decodeCodes,
  type Quantized,
  encodeToCodes,
  type VQGANConfig,
  vqganPresets,
  type BatchNormStatistics,
} from "./coders/vqgan.ts";
export { type DDPMUNetConfig, ddpmUNetPresets } from "./ddpm-unet/config.ts";
export { ddpmUNet, type DDPMUNetInputs } from "./ddpm-unet/ddpm-unet.ts";
export { type ImageShape } from "./default-sizes.ts";
export { type DiTConfig, ditPresets } from "./dit/config.ts";
export { dit, type DiTInputs, type DiTOptions } from "./dit/dit.ts";
export { families, familyOf, registerFamily } from "./families.ts";
export type {
  Architecture,
  BlockOptions,
  CountedPreset,
  ImageSizes,
  NetworkCondition,
  NetworkFamily,
  NetworkFields,
  NetworkInputs,
  TrainingRequest,
  DiffusersModel,
  MeanFlowStep,
  OriginalCheckpoint,
  OriginalFiles,
  RecordedCase,
  RecordedCases,
  RecordedForward,
  ReferenceRules,
  TextPart,
  TracedCase,
  TrainingSupport,
  LayerPart,
} from "./family.ts";
export { latte, type LatteInputs } from "./latte/latte.ts";
export { type LatteConfig, lattePresets } from "./latte/config.ts";
export { type MMDiTConfig, mmditPresets } from "./mmdit/config.ts";
export { mmdit, type MMDiTInputs, type MMDiTOptions } from "./mmdit/mmdit.ts";
export {
  canDrop,
  imageSizes,
  type NetworkConfig,
  networkInput,
  networkPresets,
  networkSchema,
  promptScope,
  skippableLayers,
  type TracedNetwork,
  traceNetwork,
  type TraceOptions,
} from "./network.ts";
export {
  paellaV1,
  type PaellaV1Config,
  type PaellaV1Inputs,
  paellaV1Presets,
} from "./paella/paella-v1.ts";
export { paella, type PaellaConfig, type PaellaInputs, paellaPresets } from "./paella/paella.ts";
export { type UViTConfig, uViTPresets } from "./u-vit/config.ts";
export { uViT, type UViTInputs } from "./u-vit/u-vit.ts";
export { packedWan, wan, type WanClip } from "./wan/wan.ts";
export { type WanConfig, wanPresets } from "./wan/config.ts";
export type { ImageCodec } from "./coders/image-codec.ts";
export type { TrainedPaellaConfig } from "./paella/config.ts";
export type { PromptEncoderConfig } from "./text-encoders/prompt-encoder.ts";
