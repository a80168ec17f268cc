import { describe, expect, it } from "vitest";
import { autoencoderKLConfig } from "../../src/models/coders/autoencoder-kl-config.ts";
import { vqganConfig } from "../../src/models/coders/vqgan.ts";
import { ddpmUNetConfig } from "../../src/models/ddpm-unet/checkpoint.ts";
import { diffusersDiTConfig, ditConfig } from "../../src/models/dit/checkpoint.ts";
import { diffusersFluxConfig, fluxConfig } from "../../src/models/flux/checkpoint.ts";
import { diffusersFlux2Config, flux2Config } from "../../src/models/flux2/checkpoint.ts";
import { diffusersMMDiTConfig, mmditConfig } from "../../src/models/mmdit/checkpoint.ts";
import { miniT2IConfig, miniT2IMeanFlowConfig } from "../../src/models/minit2i/checkpoint.ts";
import { paellaConfig } from "../../src/models/paella/paella.ts";
import { paellaV1Config } from "../../src/models/paella/paella-v1.ts";
import {
  diffusersVideoAutoencoderConfig,
  wanVAEConfig,
} from "../../src/models/coders/video-autoencoder-config.ts";
import { latteConfig } from "../../src/models/latte/checkpoint.ts";
import { diffusersWanConfig, wanConfig } from "../../src/models/wan/checkpoint.ts";
import { pixArtConfig } from "../../src/models/pixart/pixart.ts";
import { sanaConfig } from "../../src/models/sana/checkpoint.ts";
import { clipTextConfig } from "../../src/models/text-encoders/clip-text.ts";
import { qwen3Config } from "../../src/models/text-encoders/qwen3.ts";
import { t5EncoderConfig } from "../../src/models/text-encoders/t5-encoder.ts";
import { uViTConfig } from "../../src/models/u-vit/checkpoint.ts";
import { zImageConfig } from "../../src/models/z-image/checkpoint.ts";
import { fieldReader, type FieldReader } from "../../src/weights/config-fields.ts";

/** How the arguments of a constructor are treated. */
interface Arguments {
  readonly read: (read: FieldReader) => object;
  /** Arguments that are needed, or that the others have to fit. */
  readonly base?: Readonly<Record<string, unknown>>;
  /** A value of each that changes the config, with other arguments where these have to change too. */
  readonly honoured: Readonly<Record<string, unknown>>;
  /** A value of each that is not supported, and which the error names. */
  readonly refused?: Readonly<Record<string, unknown>>;
  /** A value of each that changes nothing, because the argument does not change what is computed. */
  readonly ignored?: Readonly<Record<string, unknown>>;
  /** Whether other fields are refused; transformers stores more than its constructors take. */
  readonly closed?: false;
}

/** A value with which other arguments have to change, too. */
class WithOthers {
  readonly value: unknown;
  readonly others: Readonly<Record<string, unknown>>;
  constructor(value: unknown, others: Readonly<Record<string, unknown>>) {
    this.value = value;
    this.others = others;
  }
}
const and = (value: unknown, others: Readonly<Record<string, unknown>>) =>
  new WithOthers(value, others);

/** Of latents, which no argument of the original says. */
const statistics = { mean: [0], deviation: [1] };

const originals: Readonly<Record<string, Arguments>> = {
  "DiT of facebookresearch/DiT": {
    read: ditConfig,
    honoured: {
      input_size: 16,
      patch_size: 4,
      in_channels: 3,
      hidden_size: 64,
      depth: 2,
      num_heads: 8,
      mlp_ratio: 2,
      class_dropout_prob: 0,
      num_classes: 7,
      learn_sigma: false,
    },
  },
  "MMJiTConfig of Hope7Happiness/minit2i-torch": {
    read: miniT2IConfig,
    honoured: {
      image_size: 64,
      patch_size: 8,
      in_channels: 1,
      txt_input_size: 20,
      hidden_size: and(48, { txt_hidden_size: 48 }),
      cond_vec_size: 36,
      depth_double: 3,
      txt_preamble_depth: 0,
      num_heads: 3,
      head_dim: 12,
      mlp_ratio: 4,
      pca_channels: 20,
      prompt_length: 7,
    },
    refused: { txt_hidden_size: 40, prediction: "v", sampler: "heun" },
    // How its pipeline samples; the number of guided channels is read by nothing.
    ignored: { n_T: 4, cfg_channels: 2, cfg_interval: [0.1, 0.9], llm: "google/flan-t5-small" },
  },
  "MeanFlowMMJiT of PeppaKing8/minit2i-jax": {
    read: miniT2IMeanFlowConfig,
    honoured: {
      img_input_size: 64,
      txt_input_length: 7,
      txt_input_size: 20,
      patch_size: 8,
      in_channels: 1,
      hidden_size: and(48, { txt_hidden_size: 48 }),
      depth_double: 3,
      txt_preamble_depth: 0,
      num_heads: 3,
      head_dim: 12,
      mlp_ratio: 4,
      pca_channels: 20,
      num_context_tokens: 2,
      num_time_tokens: 2,
      num_cfg_tokens: 2,
      num_interval_tokens: 1,
    },
    refused: { txt_hidden_size: 40 },
  },
  "Qwen3Config of transformers": {
    read: qwen3Config,
    honoured: {
      vocab_size: 96,
      hidden_size: 40,
      intermediate_size: 72,
      num_hidden_layers: 6,
      num_attention_heads: 64,
      num_key_value_heads: 2,
      head_dim: 16,
      rms_norm_eps: 1e-5,
      rope_theta: 1e6,
      attention_bias: true,
      pad_token_id: 0,
    },
    refused: {
      hidden_act: "gelu",
      use_sliding_window: true,
      rope_scaling: { rope_type: "yarn" },
      layer_types: ["sliding_attention"],
    },
    ignored: { attention_dropout: 0.1, sliding_window: 4096, tie_word_embeddings: true },
    closed: false,
  },
  "UViT of baofff/U-ViT": {
    read: uViTConfig,
    honoured: {
      img_size: 32,
      patch_size: 4,
      in_chans: 4,
      embed_dim: 64,
      depth: 4,
      num_heads: 4,
      mlp_ratio: 2,
      qkv_bias: true,
      mlp_time_embed: true,
      num_classes: 7,
      conv: false,
      skip: false,
      clip_dim: 32,
      num_clip_token: 9,
    },
    refused: { qk_scale: 0.5, norm_layer: "RMSNorm" },
    ignored: { use_checkpoint: true },
  },
  "UNetModel of openai/guided-diffusion": {
    read: ddpmUNetConfig,
    honoured: {
      image_size: 32,
      in_channels: 4,
      model_channels: 64,
      out_channels: 6,
      num_res_blocks: 3,
      attention_resolutions: [2],
      channel_mult: [1, 2],
      conv_resample: false,
      num_classes: 7,
      num_heads: 4,
      num_head_channels: 32,
      use_scale_shift_norm: true,
      resblock_updown: true,
      use_new_attention_order: true,
    },
    refused: { dims: 3, use_fp16: true, num_heads_upsample: 2, out_channels: 5 },
    ignored: { dropout: 0.1, use_checkpoint: true },
  },
  "Flux of black-forest-labs/flux": {
    read: fluxConfig,
    base: {
      in_channels: 16,
      vec_in_dim: 20,
      context_in_dim: 24,
      hidden_size: 48,
      mlp_ratio: 4,
      num_heads: 3,
      depth: 2,
      depth_single_blocks: 2,
      axes_dim: [4, 6, 6],
      theta: 10_000,
      qkv_bias: true,
      guidance_embed: true,
    },
    honoured: {
      in_channels: 32,
      vec_in_dim: 12,
      context_in_dim: 8,
      hidden_size: and(96, { num_heads: 6 }),
      mlp_ratio: 2,
      num_heads: and(6, { hidden_size: 96 }),
      depth: 1,
      depth_single_blocks: 1,
      axes_dim: [6, 6, 4],
      theta: 2000,
      qkv_bias: false,
      guidance_embed: false,
    },
    refused: { out_channels: 8, in_channels: 18, axes_dim: [4, 6] },
  },
  "Flux2 of black-forest-labs/flux2": {
    read: flux2Config,
    base: {
      in_channels: 12,
      context_in_dim: 30,
      hidden_size: 48,
      num_heads: 3,
      depth: 2,
      depth_single_blocks: 3,
      axes_dim: [4, 4, 4, 4],
      theta: 2000,
      mlp_ratio: 3,
    },
    honoured: {
      in_channels: 16,
      context_in_dim: 8,
      hidden_size: and(96, { num_heads: 6 }),
      num_heads: and(6, { hidden_size: 96 }),
      depth: 1,
      depth_single_blocks: 1,
      axes_dim: [2, 6, 4, 4],
      theta: 10_000,
      mlp_ratio: 2,
      use_guidance_embed: false,
    },
    refused: { axes_dim: [8, 4, 4] },
  },
  "ZImageTransformer2DModel of Tongyi-MAI/Z-Image": {
    read: (read) => zImageConfig(read),
    base: { dim: 48, n_heads: 3, axes_dims: [4, 6, 6] },
    honoured: {
      all_patch_size: [4],
      in_channels: 4,
      dim: and(96, { n_heads: 6 }),
      n_layers: 2,
      n_refiner_layers: 0,
      n_heads: and(6, { dim: 96 }),
      norm_eps: 1e-6,
      qk_norm: false,
      cap_feat_dim: 20,
      rope_theta: 100,
      t_scale: 500,
      axes_dims: [6, 6, 4],
      axes_lens: [64, 32, 16],
    },
    refused: {
      all_patch_size: [2, 4],
      all_f_patch_size: [2],
      n_kv_heads: 1,
      siglip_feat_dim: 8,
      axes_dims: [4, 6],
      axes_lens: [64],
    },
  },
  "MMDiTX of Stability-AI/sd3.5": {
    read: (read) => mmditConfig(read),
    base: {
      adm_in_channels: 20,
      pos_embed_max_size: 8,
      depth: 3,
      context_embedder_config: { in_features: 24, out_features: 192 },
    },
    honoured: {
      input_size: 8,
      patch_size: 4,
      in_channels: 16,
      depth: and(2, { context_embedder_config: { in_features: 24, out_features: 128 } }),
      mlp_ratio: 2,
      learn_sigma: true,
      adm_in_channels: 30,
      context_embedder_config: {
        target: "torch.nn.Linear",
        params: { in_features: 12, out_features: 192 },
      },
      rmsnorm: true,
      swiglu: true,
      pos_embed_max_size: 16,
      qk_norm: "rms",
      x_block_self_attn_layers: [1],
      qkv_bias: false,
    },
    refused: {
      register_length: 4,
      attn_mode: "xformers",
      scale_mod_only: true,
      out_channels: 5,
      pos_embed_scaling_factor: 2,
      pos_embed_offset: 1,
      num_patches: 65,
      context_embedder_config: { in_features: 24, out_features: 100 },
    },
    ignored: { dtype: "float16", device: "cuda", verbose: true },
  },
  "Paella of dome272/Paella": {
    read: paellaConfig,
    honoured: {
      c_in: and(64, { c_out: 64 }),
      num_labels: 32,
      c_r: 16,
      patch_size: 1,
      c_cond: 24,
      c_hidden: [320, 640, 640],
      nhead: [-1, 8, 8],
      blocks: [1, 1, 1],
      level_config: ["CT", "CT", "CTA"],
      clip_embd: 20,
      byt5_embd: 28,
      clip_seq_len: 2,
      kernel_size: 5,
      self_attn: false,
    },
    refused: { c_out: 64 },
    ignored: { dropout: 0.2 },
  },
  "DenoiseUNet of Paella's first version": {
    read: paellaV1Config,
    base: { num_labels: 32 },
    honoured: {
      num_labels: 64,
      c_hidden: 48,
      c_clip: 20,
      c_r: 16,
      down_levels: [1, 1, 2],
      up_levels: [2, 1, 1],
    },
  },
  "VQModel of dome272/Paella": {
    read: vqganConfig,
    honoured: {
      levels: 3,
      bottleneck_blocks: 2,
      c_hidden: 32,
      c_latent: 8,
      codebook_size: 32,
      scale_factor: 1,
    },
  },
  "AutoencoderKL of diffusers": {
    read: autoencoderKLConfig,
    base: {
      block_out_channels: [32, 64],
      down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
      up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    },
    honoured: {
      in_channels: 1,
      out_channels: 1,
      down_block_types: ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
      up_block_types: ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
      block_out_channels: [32, 32],
      layers_per_block: 2,
      act_fn: "relu",
      latent_channels: 8,
      norm_num_groups: 8,
      scaling_factor: 1,
      shift_factor: 0.1,
      use_quant_conv: false,
      use_post_quant_conv: false,
      mid_block_add_attention: false,
    },
    refused: { latents_mean: [0, 0, 0, 0], latents_std: [1, 1, 1, 1] },
    ignored: { sample_size: 64, force_upcast: false },
  },
  "AutoencoderKLFlux2 of diffusers": {
    read: autoencoderKLConfig,
    base: {
      _class_name: "AutoencoderKLFlux2",
      block_out_channels: [32, 64],
      down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
      up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    },
    closed: false,
    honoured: {
      in_channels: 1,
      out_channels: 1,
      block_out_channels: [32, 32],
      layers_per_block: 1,
      act_fn: "relu",
      latent_channels: 8,
      norm_num_groups: 8,
      use_quant_conv: false,
      use_post_quant_conv: false,
      mid_block_add_attention: false,
      batch_norm_eps: 1e-5,
      patch_size: [4, 4],
    },
    refused: { patch_size: [2, 4], act_fn: "tanh", scaling_factor: 2, shift_factor: 1 },
    ignored: { sample_size: 64, force_upcast: false, batch_norm_momentum: 0.2 },
  },
  "WanModel of Wan-Video": {
    read: wanConfig,
    honoured: {
      patch_size: [1, 4, 4],
      text_len: 64,
      in_dim: 48,
      dim: 1024,
      ffn_dim: 4096,
      freq_dim: 128,
      text_dim: 64,
      out_dim: 48,
      num_heads: 8,
      num_layers: 2,
      qk_norm: false,
      cross_attn_norm: false,
      eps: 1e-5,
    },
    refused: {
      model_type: "i2v",
      patch_size: [2, 2],
      window_size: [4, 4],
      num_heads: 3,
      freq_dim: 7,
    },
    // The network is the same; what differs is what it is given.
    ignored: { model_type: "ti2v" },
  },
  "WanTransformer3DModel of diffusers": {
    read: diffusersWanConfig,
    honoured: {
      patch_size: [1, 4, 4],
      num_attention_heads: 12,
      attention_head_dim: 64,
      in_channels: 48,
      out_channels: 48,
      text_dim: 64,
      freq_dim: 128,
      ffn_dim: 4096,
      num_layers: 2,
      cross_attn_norm: false,
      eps: 1e-5,
    },
    refused: {
      qk_norm: "layer_norm",
      image_dim: 1280,
      added_kv_proj_dim: 5120,
      rope_max_seq_len: 512,
      pos_embed_seq_len: 514,
      attention_head_dim: 7,
    },
  },
  "Latte of Vchitect/Latte": {
    read: latteConfig,
    honoured: {
      input_size: 16,
      patch_size: 4,
      in_channels: 3,
      hidden_size: 64,
      depth: 2,
      num_heads: 8,
      mlp_ratio: 2,
      num_frames: 8,
      class_dropout_prob: and(0, { extras: 2 }),
      num_classes: and(7, { extras: 2 }),
      learn_sigma: false,
      extras: 78,
    },
    refused: { depth: 3, extras: 3 },
    ignored: { attention_mode: "xformers" },
  },
  "WanVAE_ of Wan2.1": {
    read: (read) => wanVAEConfig(read, false, statistics),
    honoured: {
      dim: 32,
      z_dim: 16,
      dim_mult: and([1, 2, 4], { temperal_downsample: [true, true] }),
      num_res_blocks: 1,
      temperal_downsample: [false, true, true],
    },
    refused: {
      attn_scales: [0.5],
      temperal_downsample: [true],
      dim_mult: [1, 2, 4, 4, 4],
    },
    ignored: { dropout: 0.1 },
  },
  "WanVAE_ of Wan2.2": {
    read: (read) => wanVAEConfig(read, true, statistics),
    honoured: {
      dim: 32,
      dec_dim: 64,
      z_dim: 48,
      dim_mult: [1, 1, 2, 2],
      num_res_blocks: 1,
      temperal_downsample: [false, true, true],
    },
    refused: { temperal_downsample: [true] },
    // Its encoder keeps them and builds no attention in its levels.
    ignored: { dropout: 0.1, attn_scales: [0.5] },
  },
  "AutoencoderKLWan of diffusers": {
    read: diffusersVideoAutoencoderConfig,
    honoured: {
      base_dim: 32,
      decoder_base_dim: 64,
      z_dim: and(2, { latents_mean: [0, 1], latents_std: [1, 2] }),
      dim_mult: and([1, 2, 4], { temperal_downsample: [true, true], scale_factor_spatial: 4 }),
      num_res_blocks: 1,
      temperal_downsample: [true, true, false],
      latents_mean: new Array(16).fill(0.5),
      latents_std: new Array(16).fill(0.5),
      is_residual: and(true, { scale_factor_spatial: 16 }),
    },
    refused: {
      in_channels: 12,
      out_channels: 12,
      patch_size: 2,
      attn_scales: [0.5],
      scale_factor_spatial: 16,
      scale_factor_temporal: 8,
      latents_mean: [0],
      latents_std: [1],
      z_dim: 2,
    },
    ignored: { dropout: 0.1, clip_output: false },
  },
  "PixArtTransformer2DModel of diffusers": {
    read: pixArtConfig,
    base: { caption_channels: 4096 },
    honoured: {
      num_attention_heads: and(8, { cross_attention_dim: 576 }),
      attention_head_dim: and(64, { cross_attention_dim: 1024 }),
      in_channels: 8,
      out_channels: 4,
      num_layers: 2,
      cross_attention_dim: and(640, { caption_channels: null }),
      attention_bias: false,
      sample_size: 64,
      patch_size: 4,
      activation_fn: "gelu",
      norm_elementwise_affine: true,
      norm_eps: 1e-5,
      interpolation_scale: 1,
      use_additional_conditions: false,
      caption_channels: 64,
    },
    refused: {
      norm_type: "ada_norm",
      attention_type: "gated",
      cross_attention_dim: 640,
      activation_fn: "geglu",
    },
    ignored: { dropout: 0.1, norm_num_groups: 8, num_embeds_ada_norm: 7, upcast_attention: true },
  },
  "SanaTransformer2DModel of diffusers": {
    read: sanaConfig,
    honoured: {
      in_channels: and(8, { out_channels: 8 }),
      out_channels: 64,
      num_attention_heads: and(35, { cross_attention_dim: 1120 }),
      attention_head_dim: and(16, { cross_attention_dim: 1120 }),
      num_layers: 2,
      num_cross_attention_heads: 10,
      cross_attention_head_dim: 56,
      caption_channels: 64,
      mlp_ratio: 3,
      attention_bias: true,
      sample_size: 16,
      patch_size: 2,
      norm_elementwise_affine: true,
      norm_eps: 1e-5,
      interpolation_scale: 2,
    },
    refused: {
      out_channels: 48,
      cross_attention_dim: 1120,
      guidance_embeds: true,
      qk_norm: "rms_norm_across_heads",
    },
    ignored: { dropout: 0.1 },
  },
  "DiTTransformer2DModel of diffusers": {
    read: diffusersDiTConfig,
    honoured: {
      num_attention_heads: 8,
      attention_head_dim: 64,
      in_channels: 8,
      out_channels: 8,
      num_layers: 2,
      sample_size: 64,
      patch_size: 4,
      num_embeds_ada_norm: 7,
    },
    refused: {
      activation_fn: "gelu",
      attention_bias: false,
      norm_type: "ada_norm",
      norm_elementwise_affine: true,
      norm_eps: 1e-4,
      out_channels: 5,
      cross_attention_dim: 64,
      num_vector_embeds: 8,
      use_linear_projection: true,
      only_cross_attention: true,
      double_self_attention: true,
      attention_type: "gated",
      caption_channels: 64,
      interpolation_scale: 2,
      use_additional_conditions: true,
    },
    ignored: { dropout: 0.1, norm_num_groups: 8, upcast_attention: true },
  },
  "FluxTransformer2DModel of diffusers": {
    read: diffusersFluxConfig,
    honoured: {
      in_channels: 32,
      num_layers: 2,
      num_single_layers: 2,
      attention_head_dim: and(16, { axes_dims_rope: [4, 6, 6] }),
      num_attention_heads: 2,
      joint_attention_dim: 64,
      pooled_projection_dim: 32,
      guidance_embeds: true,
      axes_dims_rope: [32, 48, 48],
    },
    refused: { patch_size: 2, out_channels: 16, in_channels: 18, axes_dims_rope: [16, 56] },
  },
  "Flux2Transformer2DModel of diffusers": {
    read: diffusersFlux2Config,
    honoured: {
      in_channels: 32,
      num_layers: 2,
      num_single_layers: 2,
      attention_head_dim: and(16, { axes_dims_rope: [4, 4, 4, 4] }),
      num_attention_heads: 2,
      joint_attention_dim: 64,
      mlp_ratio: 2,
      axes_dims_rope: [16, 48, 32, 32],
      rope_theta: 100,
      guidance_embeds: false,
    },
    refused: {
      patch_size: 2,
      out_channels: 16,
      timestep_guidance_channels: 128,
      eps: 1e-5,
      axes_dims_rope: [64, 64],
    },
  },
  "SD3Transformer2DModel of diffusers": {
    read: diffusersMMDiTConfig,
    honoured: {
      sample_size: 64,
      patch_size: 4,
      in_channels: and(8, { out_channels: 8 }),
      num_layers: 2,
      attention_head_dim: and(32, { caption_projection_dim: 576 }),
      num_attention_heads: and(9, { caption_projection_dim: 576 }),
      joint_attention_dim: 64,
      pooled_projection_dim: 32,
      pos_embed_max_size: 32,
      dual_attention_layers: [0],
      qk_norm: "rms_norm",
    },
    refused: { caption_projection_dim: 64, out_channels: 8, qk_norm: "layer_norm" },
  },
  "CLIPTextConfig of transformers": {
    read: clipTextConfig,
    closed: false,
    honoured: {
      vocab_size: 64,
      hidden_size: 32,
      intermediate_size: 128,
      projection_dim: 16,
      num_hidden_layers: 3,
      num_attention_heads: 4,
      max_position_embeddings: 16,
      hidden_act: "gelu",
      layer_norm_eps: 1e-6,
      eos_token_id: 3,
      architectures: ["CLIPTextModel"],
    },
    refused: { hidden_act: "relu", architectures: ["CLIPModel"] },
    ignored: {
      attention_dropout: 0.1,
      initializer_range: 1,
      initializer_factor: 2,
      pad_token_id: 0,
      bos_token_id: 0,
    },
  },
  "T5Config of transformers": {
    read: t5EncoderConfig,
    closed: false,
    base: { feed_forward_proj: "gated-gelu" },
    honoured: {
      vocab_size: 64,
      d_model: 32,
      d_kv: 8,
      d_ff: 64,
      num_layers: 3,
      num_heads: 4,
      relative_attention_num_buckets: 16,
      relative_attention_max_distance: 64,
      layer_norm_epsilon: 1e-5,
      // Each layer of UMT5 has a table of its own.
      model_type: "umt5",
    },
    refused: { feed_forward_proj: "relu", is_gated_act: false, dense_act_fn: "relu" },
    ignored: {
      num_decoder_layers: 9,
      dropout_rate: 0.5,
      initializer_factor: 2,
      is_encoder_decoder: false,
      use_cache: false,
      pad_token_id: 5,
      eos_token_id: 6,
      classifier_dropout: 0.3,
    },
  },
};

describe.each(Object.entries(originals))("%s", (_, { read, base = {}, closed, ...groups }) => {
  const configOf = (args: Readonly<Record<string, unknown>>) =>
    read(fieldReader("config.json", { ...base, ...args }));
  const honoured = Object.entries(groups.honoured).map(([name, value]) => {
    const given = value instanceof WithOthers ? value : new WithOthers(value, {});
    return [name, { ...given.others, [name]: given.value }] as const;
  });

  it.each(honoured)("honours %s", (_name, args) => {
    expect(configOf(args)).not.toEqual(configOf({}));
  });

  it.each(Object.entries(groups.refused ?? {}))("refuses %s = %j by name", (name, value) => {
    expect(() => configOf({ [name]: value })).toThrow(name);
  });

  it.each(Object.entries(groups.ignored ?? {}))("does not depend on %s", (name, value) => {
    expect(configOf({ [name]: value })).toEqual(configOf({}));
  });

  if (closed === false) return;
  it("refuses an unknown argument by name", () => {
    expect(() => configOf({ shift_size: 4 })).toThrow(
      /config\.json has "shift_size", which is no argument of \w/,
    );
    expect(configOf({ shift_size: null, _class_name: "X" })).toEqual(configOf({}));
  });
});
