/**
 * Paella's VQGAN: `out.latent`, `out.quantized`, `out.indices` and `out.vq_loss` for `in.image`, `out.decode` for `in.z`, and
 * `out.decode_indices` for `in.indices`.
 */
import {
  decodeQuantized,
  decodeCodes,
  encodeToCodes,
  vqganConfig,
  vqganKeys,
} from "../models/coders/vqgan.ts";
import { createParams } from "../nn/params.ts";
import type { Family } from "./family.ts";
import { computeNetwork, recordedModel, requiredInput } from "./network.ts";
export const paellaVQGAN: Family = (recording, backend) => {
  const config = vqganConfig(recordedModel(recording).args);
  const params = createParams();
  const encoded = encodeToCodes(params, requiredInput(recording, "image"), config);
  const outputs = {
    "out.latent": encoded.latents,
    "out.quantized": encoded.quantized,
    "out.indices": encoded.indices,
    "out.vq_loss": encoded.loss,
    "out.decode": decodeQuantized(params, requiredInput(recording, "z"), config),
    "out.decode_indices": decodeCodes(params, requiredInput(recording, "indices"), config),
  };
  return computeNetwork(recording, backend, { params, outputs, keys: vqganKeys([]) });
};
