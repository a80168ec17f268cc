"""The work of bench/lora-work.ts in PyTorch, with the products of the LoRA beside those of the base."""

import time

import torch
import torch.nn.functional as F

from dit import transformer
from host import serve
from update import updates


def setup(work, tensors):
    batch = {name: tensors.pop(name) for name in ("pos_embed", "x", "t", "y", "target")}
    params = {n: t.requires_grad_() for n, t in tensors.items() if ".lora_" in n}
    base, base_transform = transformer(work, tensors)
    linear, transform = transformer(work, tensors, params, work["alpha"] / work["rank"])
    labels = batch["y"].long()
    update = updates(work, params)

    def loss(linear, transform):
        h = linear(batch["x"], "x_embedder.proj") + batch["pos_embed"]
        return F.mse_loss(transform(h, batch["t"], labels), batch["target"])

    def step():
        start = time.perf_counter()
        with torch.inference_mode():
            loss(base, base_transform)
        forward = (time.perf_counter() - start) * 1e3
        start = time.perf_counter()
        value = loss(linear, transform)
        value.backward()
        update()
        ms = (time.perf_counter() - start) * 1e3
        return {"ms": ms, "value": value.item(), "parts": {"forward": forward, "step": ms}}

    return step


serve(setup)
