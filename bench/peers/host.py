"""The Python side of the line protocol in bench/contender.ts, and the reader of bench/tensor-file.ts."""

import ctypes
import json
import os
import sys

import torch


def read_work(work_dir):
    with open(os.path.join(work_dir, "work.json")) as file:
        work = json.load(file)
    with open(os.path.join(work_dir, "tensors.json")) as file:
        index = json.load(file)
    size = os.path.getsize(os.path.join(work_dir, "tensors.bin")) // 4
    flat = torch.from_file(os.path.join(work_dir, "tensors.bin"), size=size, dtype=torch.float32)

    def tensor(name):
        shape, offset = index[name]["shape"], index[name]["offset"]
        return flat[offset:].as_strided(shape, contiguous_strides(shape)).clone()

    return work, {name: tensor(name) for name in index}


def contiguous_strides(shape):
    strides, stride = [], 1
    for size in reversed(shape):
        strides.insert(0, stride)
        stride *= size
    return strides


def settings():
    """The version, threads and environment that decide the speed, in one line."""
    try:
        blas = ctypes.CDLL("libopenblas.so.0")
        blas.openblas_get_corename.restype = ctypes.c_char_p
        kernels = f"OpenBLAS {blas.openblas_get_corename().decode()} kernels"
    except (OSError, AttributeError):
        kernels = "BLAS other than OpenBLAS"
    prefixes = ("OPENBLAS_", "OMP_", "MALLOC_")
    env = " ".join(f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(prefixes))
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, {kernels}; {env}"


def serve(setup):
    """`setup(work, tensors)` gives `step()`, which gives the fields of a StepResult."""
    work, tensors = read_work(sys.argv[1])
    torch.set_num_threads(work["threads"])
    torch.set_flush_denormal(True)
    step = setup(work, tensors)
    print(json.dumps({"settings": settings()}), flush=True)
    for line in sys.stdin:
        if line.strip() == "step":
            print(json.dumps(step()), flush=True)
