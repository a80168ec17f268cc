"""The work of bench/sd3-work.ts in PyTorch: one block, which stands for all."""

import time

import torch
import torch.nn.functional as F

from host import serve


def setup(work, weights):
    hidden, heads = work["hidden"], work["heads"]
    c = weights["vector"][:, None]

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def modulated(h, shift, scale):
        return torch.addcmul(shift, F.layer_norm(h, (hidden,), eps=1e-6), 1 + scale)

    def modulation(stream):
        return linear(c, f"{stream}.adaLN_modulation.1").chunk(6, -1)

    def qkv(h, stream):
        b, n, _ = h.shape
        parts = linear(h, f"{stream}.attn.qkv").view(b, n, 3, heads, hidden // heads)
        return parts.permute(2, 0, 3, 1, 4)

    def after(h, attended, stream, gate1, shift2, scale2, gate2):
        h = torch.addcmul(h, gate1, linear(attended, f"{stream}.attn.proj"))
        m = linear(modulated(h, shift2, scale2), f"{stream}.mlp.fc1")
        return torch.addcmul(h, gate2, linear(F.gelu(m, approximate="tanh"), f"{stream}.mlp.fc2"))

    def block(x, context):
        b, words, _ = context.shape
        shift_x, scale_x, *rest_x = modulation("x_block")
        shift_c, scale_c, *rest_c = modulation("context_block")
        q, k, v = torch.cat(
            [
                qkv(modulated(context, shift_c, scale_c), "context_block"),
                qkv(modulated(x, shift_x, scale_x), "x_block"),
            ],
            3,
        )
        shares = ((q * (hidden // heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
        attended = (shares @ v).transpose(1, 2).reshape(b, -1, hidden)
        return (
            after(x, attended[:, words:], "x_block", *rest_x),
            after(context, attended[:, :words], "context_block", *rest_c),
        )

    @torch.inference_mode()
    def step():
        start = time.perf_counter()
        x, context = block(weights["image"], weights["text"])
        ms = (time.perf_counter() - start) * 1e3
        # One block represents all `depth` blocks.
        result = torch.cat([x.flatten()[:: work["every"]], context.flatten()[:: work["every"]]])
        parts = {"one block": ms, "whole step": work["depth"] * ms}
        return {
            "ms": parts["whole step"],
            "parts": parts,
            "value": result.double().square().mean().item(),
            "result": result.tolist(),
        }

    with torch.inference_mode():
        block(weights["image"], weights["text"])
    return step


serve(setup)
