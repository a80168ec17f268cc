"""Prints the GFLOP/s of the BLAS that PyTorch and NumPy share on a DiT layer's product; fails where it is wrong."""

import time

import numpy as np

random = np.random.default_rng(0)
a = random.standard_normal((2048, 384), dtype=np.float32)
b = random.standard_normal((384, 1536), dtype=np.float32)
assert np.allclose(a @ b, a.astype(np.float64) @ b.astype(np.float64), atol=1e-3)
times = []
for _ in range(50):
    start = time.perf_counter()
    a @ b
    times.append(time.perf_counter() - start)
print(2e-9 * 2048 * 384 * 1536 / min(times))
