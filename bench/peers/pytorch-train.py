"""The work of bench/train-work.ts in PyTorch."""

import time

import torch.nn.functional as F

from dit import transformer
from host import serve
from update import updates


def setup(work, tensors):
    batch = {name: tensors.pop(name) for name in ("pos_embed", "x", "t", "y", "target")}
    params = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    linear, transform = transformer(work, params)
    labels = batch["y"].long()
    update = updates(work, params)

    def loss():
        h = linear(batch["x"], "x_embedder.proj") + batch["pos_embed"]
        return F.mse_loss(transform(h, batch["t"], labels), batch["target"])

    def step():
        start = time.perf_counter()
        value = loss()
        value.backward()
        update()
        return {"ms": (time.perf_counter() - start) * 1e3, "value": value.item()}

    return step


serve(setup)
