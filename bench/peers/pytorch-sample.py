"""The work of bench/sample-work.ts in PyTorch."""

import itertools
import time

import torch
import torch.nn.functional as F

from dit import transformer
from host import serve


def setup(work, weights):
    patch, channels = work["patch"], work["channels"]
    side = work["size"] // patch
    _, transform = transformer(work, weights)

    def dit(x, times, labels):
        b = x.shape[0]
        h = F.conv2d(x, weights["x_embedder.proj.weight"], weights["x_embedder.proj.bias"], patch)
        h = h.flatten(2).transpose(1, 2) + weights["pos_embed"]
        out = transform(h, times, labels)
        out = out.view(b, side, side, patch, patch, work["outputs"]).permute(0, 5, 1, 3, 2, 4)
        return out.reshape(b, work["outputs"], side * patch, side * patch)

    def drawing(batch):
        steps = work["steps"]
        x = weights[f"noise.{batch}"]
        classes = weights[f"y.{batch}"].long()
        labels = torch.cat([classes, torch.full_like(classes, work["classes"])])
        for i in range(steps):
            noise = 1 - i / steps
            times = torch.tensor([1000 * noise])
            out = dit(torch.cat([x, x]), times, labels)[:, :channels]
            if work["predicts"] == "x0":
                out = (torch.cat([x, x]) - out) / noise
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
