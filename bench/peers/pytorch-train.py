"""The work of bench/train-work.ts in PyTorch."""

import math
import time

import torch
import torch.nn.functional as F

from host import serve


def setup(work, tensors):
    batch = {name: tensors.pop(name) for name in ("pos_embed", "x", "t", "y", "target")}
    params = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    ema = {name: tensor.detach().clone() for name, tensor in params.items()}
    moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in params.items()}
    hidden, heads = work["hidden"], work["heads"]
    half = work["frequencies"] // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)
    labels = batch["y"].long()
    count = 0

    def linear(x, name):
        return F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"])

    def modulated(h, shift, scale):
        return torch.addcmul(shift, F.layer_norm(h, (hidden,), eps=1e-6), 1 + scale)

    def attention(h, name):
        b, n, _ = h.shape
        qkv = linear(h, f"{name}.qkv").view(b, n, 3, heads, hidden // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = ((q * (hidden // heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
        return linear((weights @ v).transpose(1, 2).reshape(b, n, hidden), f"{name}.proj")

    def loss():
        angle = batch["t"][:, None] * frequencies
        c = linear(torch.cat([angle.cos(), angle.sin()], -1), "t_embedder.mlp.0")
        c = linear(F.silu(c), "t_embedder.mlp.2")
        c = F.silu(c + F.embedding(labels, params["y_embedder.embedding_table.weight"]))[:, None]
        h = linear(batch["x"], "x_embedder.proj") + batch["pos_embed"]
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
        out = linear(modulated(h, shift, scale), "final_layer.linear")
        return F.mse_loss(out, batch["target"])

    @torch.no_grad()
    def update():
        # One parameter at a time: what belongs to it stays in the cache from pass to pass. Measured faster than
        # torch.optim.AdamW (foreach or not) with a foreach EMA, and than lerp_, which is not vectorised in 1.13.
        rate, beta1, beta2 = work["learningRate"], work["beta1"], work["beta2"]
        bias1, bias2 = 1 - beta1**count, 1 - beta2**count
        for name, p in params.items():
            m, v = moments[name]
            m.mul_(beta1).add_(p.grad, alpha=1 - beta1)
            v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            p.mul_(1 - rate * work["weightDecay"])
            p.addcdiv_(m, v.sqrt().div_(bias2**0.5).add_(work["epsilon"]), value=-rate / bias1)
            ema[name].mul_(work["emaDecay"]).add_(p, alpha=1 - work["emaDecay"])
            p.grad = None

    def step():
        nonlocal count
        start = time.perf_counter()
        value = loss()
        value.backward()
        count += 1
        update()
        return {"ms": (time.perf_counter() - start) * 1e3, "value": value.item()}

    return step


serve(setup)
