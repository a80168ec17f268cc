"""The work of bench/matmul-work.ts in PyTorch."""

import time

import torch

from host import serve


def setup(work, tensors):
    def step():
        parts, checksum = {}, 0.0
        for name in work["shapes"]:
            b = tensors[f"{name}.b"]
            start = time.perf_counter()
            results = [torch.matmul(a, b) for a in tensors[f"{name}.a"]]
            parts[name] = (time.perf_counter() - start) * 1e3 / work["products"]
            checksum += sum(abs(c[-1, -1].item()) for c in results)
        return {"ms": sum(parts.values()), "value": checksum, "parts": parts}

    return step


serve(setup)
