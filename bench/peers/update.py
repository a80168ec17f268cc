"""AdamW and the moving average of the suites `train` and `lora` in PyTorch."""

import torch


def updates(work, params):
    """A function that updates parameters by their gradients, which it clears."""
    ema = {name: tensor.detach().clone() for name, tensor in params.items()}
    moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in params.items()}
    count = 0

    @torch.no_grad()
    def update():
        # One parameter at a time, so that its data stays in the cache from pass to pass. This is faster than
        # torch.optim.AdamW (foreach or not) with a foreach EMA, and than lerp_, which is not vectorised in 1.13.
        nonlocal count
        count += 1
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

    return update
