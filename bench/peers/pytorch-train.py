"""The work of bench/train-work.ts in PyTorch."""

import time

import torch
import torch.nn.functional as F

from dit import transformer
from host import serve


def setup(work, tensors):
    batch = {name: tensors.pop(name) for name in ("pos_embed", "x", "t", "y", "target")}
    params = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    ema = {name: tensor.detach().clone() for name, tensor in params.items()}
    moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in params.items()}
    linear, transform = transformer(work, params)
    labels = batch["y"].long()
    count = 0

    def loss():
        h = linear(batch["x"], "x_embedder.proj") + batch["pos_embed"]
        return F.mse_loss(transform(h, batch["t"], labels), batch["target"])

    @torch.no_grad()
    def update():
        # One parameter at a time, so that its data stays in the cache from pass to pass. This is faster than
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
