"""The work of bench/emoji-work.ts in PyTorch."""

import math
import time

import torch
import torch.nn.functional as F

from host import serve


def setup(work, weights):
    config = work["network"]
    hidden, heads, patch = config["hidden"], config["heads"], config["patch"]
    side = config["size"][0] // patch
    size = hidden // heads
    inner = int(hidden * config["mlpRatio"]) * 2 // 3
    frequencies = torch.exp(-math.log(10000) * torch.arange(128) / 128)

    # Half of a head's pairs of channels turn by the row, the other half by the column.
    places = torch.arange(side).float()
    rates = config["rotary"]["theta"] ** -(torch.arange(size // 4) / (size // 4))
    rows = (places[:, None] * rates)[:, None].expand(side, side, -1)
    columns = (places[:, None] * rates)[None].expand(side, side, -1)
    angles = torch.cat([rows, columns], -1).reshape(side * side, size // 2)
    turn = torch.polar(torch.ones_like(angles), angles)

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def rms(x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)

    def modulated(h, shift, scale):
        return torch.addcmul(shift, rms(h), 1 + scale)

    def modulation(c, name, parts):
        return linear(linear(c, f"{name}.0"), f"{name}.1").chunk(parts, -1)

    def rotated(x, weight):
        x = rms(x) * weight
        pairs = torch.view_as_complex(x.unflatten(-1, (size // 2, 2)).contiguous())
        return torch.view_as_real(pairs * turn).flatten(-2)

    def attention(h, name):
        b, n, _ = h.shape
        q, k, v = linear(h, f"{name}.qkv").view(b, n, 3, heads, size).permute(2, 0, 3, 1, 4)
        q = rotated(q, weights[f"{name}.q_norm.weight"])
        k = rotated(k, weights[f"{name}.k_norm.weight"])
        shares = ((q * size**-0.5) @ k.transpose(-2, -1)).softmax(-1)
        return linear((shares @ v).transpose(1, 2).reshape(b, n, hidden), f"{name}.proj")

    def network(x, time_of_step, code):
        b = x.shape[0]
        angle = torch.tensor([[time_of_step]]) * frequencies
        t = linear(torch.cat([angle.cos(), angle.sin()], -1), "t_embedder.mlp.0")
        t = linear(F.silu(t), "t_embedder.mlp.2")
        y = linear(code, "y_embedder.y_proj.fc1")
        y = linear(F.gelu(y, approximate="tanh"), "y_embedder.y_proj.fc2")
        c = F.silu(t + y)[:, None]

        h = F.conv2d(x, weights["x_embedder.proj1.weight"], None, patch).flatten(2).transpose(1, 2)
        h = linear(h, "x_embedder.proj2") + weights["pos_embed"]
        canvas = linear(code, "canvas.map").view(b, side * side, -1)
        h = h + linear(canvas, "canvas.proj")
        for i in range(config["depth"]):
            name = f"blocks.{i}"
            parts = modulation(c, f"{name}.adaLN_modulation", 6)
            shift1, scale1, gate1, shift2, scale2, gate2 = parts
            h = torch.addcmul(h, gate1, attention(modulated(h, shift1, scale1), f"{name}.attn"))
            gate, value = linear(modulated(h, shift2, scale2), f"{name}.mlp.w12").split(inner, -1)
            h = torch.addcmul(h, gate2, linear(F.silu(gate) * value, f"{name}.mlp.w3"))
        shift, scale = modulation(c, "final_layer.adaLN_modulation", 2)
        out = linear(modulated(h, shift, scale), "final_layer.linear")
        out = out.view(b, side, side, patch, patch, 3).permute(0, 5, 1, 3, 2, 4)
        return out.reshape(b, 3, side * patch, side * patch)

    def draw(batch):
        x, code = weights[f"noise.{batch}"], weights[f"y.{batch}"][:, 0]
        for sigma, to in zip(work["sigmas"], work["sigmas"][1:]):
            x0 = network(x, 1000 * sigma, code)
            x = (1 - to) * x0 + to / sigma * (x - (1 - sigma) * x0)
        return x

    @torch.inference_mode()
    def step():
        parts, pictures = {}, []
        for batch in work["batches"]:
            start = time.perf_counter()
            pictures.append(draw(batch).flatten())
            parts[f"batch {batch}"] = (time.perf_counter() - start) * 1e3
        result = torch.cat(pictures)
        return {
            "ms": sum(parts.values()),
            "value": result.double().square().mean().item(),
            "parts": parts,
            "result": result.tolist(),
        }

    with torch.inference_mode():
        for batch in work["batches"]:
            draw(batch)
    return step


serve(setup)
