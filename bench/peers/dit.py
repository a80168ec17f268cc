"""The DiT of the suites `train`, `lora` and `sample` in PyTorch, from tokens to what the last layer says of each."""

import math

import torch
import torch.nn.functional as F


def transformer(work, weights, lora={}, scale=1):
    """
    `linear(x, name)` and `transform(h, times, labels)` on weights under their names in facebookresearch/DiT, with the
    matrices of a LoRA times `scale` added where there are some.
    """
    hidden, heads = work["hidden"], work["heads"]
    half = work["frequencies"] // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)

    def linear(x, name):
        y = F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
        if f"{name}.lora_A.weight" not in lora:
            return y
        narrow = F.linear(x, lora[f"{name}.lora_A.weight"])
        return torch.add(y, F.linear(narrow, lora[f"{name}.lora_B.weight"]), alpha=scale)

    def modulated(h, shift, scale):
        return torch.addcmul(shift, F.layer_norm(h, (hidden,), eps=1e-6), 1 + scale)

    def attention(h, name):
        b, n, _ = h.shape
        qkv = linear(h, f"{name}.qkv").view(b, n, 3, heads, hidden // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        shares = ((q * (hidden // heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
        return linear((shares @ v).transpose(1, 2).reshape(b, n, hidden), f"{name}.proj")

    def transform(h, times, labels):
        """Tokens [B, N, hidden], times and classes [B] or [1] -> [B, N, outputs]."""
        angle = times[:, None] * frequencies
        c = linear(torch.cat([angle.cos(), angle.sin()], -1), "t_embedder.mlp.0")
        c = linear(F.silu(c), "t_embedder.mlp.2")
        c = F.silu(c + F.embedding(labels, weights["y_embedder.embedding_table.weight"]))[:, None]
        for i in range(work["depth"]):
            name = f"blocks.{i}"
            shift1, scale1, gate1, shift2, scale2, gate2 = linear(
                c, f"{name}.adaLN_modulation.1"
            ).chunk(6, -1)
            h = torch.addcmul(h, gate1, attention(modulated(h, shift1, scale1), f"{name}.attn"))
            m = linear(modulated(h, shift2, scale2), f"{name}.mlp.fc1")
            m = linear(F.gelu(m, approximate="tanh"), f"{name}.mlp.fc2")
            h = torch.addcmul(h, gate2, m)
        shift, scale = linear(c, "final_layer.adaLN_modulation.1").chunk(2, -1)
        return linear(modulated(h, shift, scale), "final_layer.linear")

    return linear, transform
