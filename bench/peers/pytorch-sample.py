"""The work of bench/sample-work.ts in PyTorch."""

import itertools
import math
import time

import torch
import torch.nn.functional as F

from host import serve


def setup(work, weights):
    hidden, heads, patch = work["hidden"], work["heads"], work["patch"]
    channels, side = work["channels"], work["size"] // work["patch"]
    half = work["frequencies"] // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def modulated(h, shift, scale):
        return torch.addcmul(shift, F.layer_norm(h, (hidden,), eps=1e-6), 1 + scale)

    def attention(h, name):
        b, n, _ = h.shape
        qkv = linear(h, f"{name}.qkv").view(b, n, 3, heads, hidden // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        shares = ((q * (hidden // heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
        return linear((shares @ v).transpose(1, 2).reshape(b, n, hidden), f"{name}.proj")

    def dit(x, time, labels):
        b = x.shape[0]
        angle = time * frequencies
        c = linear(torch.cat([angle.cos(), angle.sin()], -1), "t_embedder.mlp.0")
        c = linear(F.silu(c), "t_embedder.mlp.2")
        c = F.silu(c + F.embedding(labels, weights["y_embedder.embedding_table.weight"]))[:, None]
        h = F.conv2d(x, weights["x_embedder.proj.weight"], weights["x_embedder.proj.bias"], patch)
        h = h.flatten(2).transpose(1, 2) + weights["pos_embed"]
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
        out = out.view(b, side, side, patch, patch, 2 * channels).permute(0, 5, 1, 3, 2, 4)
        return out.reshape(b, 2 * channels, side * patch, side * patch)

    def drawing(batch):
        steps = work["steps"]
        x = weights[f"noise.{batch}"]
        classes = weights[f"y.{batch}"].long()
        labels = torch.cat([classes, torch.full_like(classes, work["classes"])])
        for i in range(steps):
            time = torch.tensor([[1000 * (1 - i / steps)]])
            out = dit(torch.cat([x, x]), time, labels)[:, :channels]
            wanted, free = out.chunk(2)
            x = x - torch.lerp(free, wanted, work["guidance"]) / steps
            yield x

    begun = {}

    def advance(batch):
        """Takes a batch `stride` steps further."""
        if batch not in begun:
            begun[batch] = itertools.chain.from_iterable(drawing(batch) for _ in itertools.count())
        return list(itertools.islice(begun[batch], work["stride"]))[-1]

    @torch.inference_mode()
    def step():
        parts, latents = {}, []
        for batch in work["batches"]:
            start = time.perf_counter()
            latents.append(advance(batch).flatten())
            parts[f"batch {batch}"] = (time.perf_counter() - start) * 1e3
        result = torch.cat(latents)
        return {
            "ms": sum(parts.values()),
            "value": result.double().square().mean().item(),
            "parts": parts,
            "result": result.tolist(),
        }

    with torch.inference_mode():
        for batch in work["batches"]:
            next(drawing(batch))
    return step


serve(setup)
