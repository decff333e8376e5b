"""The element-wise parts of the model as plain functions, compiled where that is possible.

Eager PyTorch makes a pass over memory for every operation; compiled, each function here is one
pass. Everything is computed in float32 and stored in bfloat16.
"""

import os

import torch

BF16 = torch.bfloat16


def norm_forward(h, w, eps: float):
    x = h.float()
    r = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return (x * r * w.float()).to(BF16), r


def norm_backward(h, w, r, dy):
    n, dy = h.float() * r, dy.float()
    g = dy * w.float()
    dh = (g - n * (g * n).mean(-1, keepdim=True)) * r
    return dh.to(h.dtype), (dy * n).sum(0).to(w.dtype)


def add_norm_forward(h, y, w, eps: float):
    h = h + y.float()
    r = torch.rsqrt(h.square().mean(-1, keepdim=True) + eps)
    return h, (h * r * w.float()).to(BF16), r


def add_norm_backward(h, w, r, dh, dx):
    n, dx = h * r, dx.float()
    g = dx * w.float()
    dh = dh + (g - n * (g * n).mean(-1, keepdim=True)) * r
    return dh, dh.to(BF16), (dx * n).sum(0).to(w.dtype)


def swiglu_forward(gu):
    g, u = gu.float().chunk(2, -1)
    return (g * torch.sigmoid(g) * u).to(BF16)


def swiglu_backward(gu, da):
    g, u = gu.float().chunk(2, -1)
    da, sig = da.float(), torch.sigmoid(g)
    silu = g * sig
    return torch.cat([da * u * (sig + silu * (1 - sig)), da * silu], -1).to(BF16)


def rotate(x, cos, sin):
    """Interleaved pairs (a, b) -> (a cos - b sin, a sin + b cos); cos, sin are [T, 1, rope / 2]."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(BF16)


def combine(ys, slot, w):
    """Sum over k of w[t, k] * ys[slot[t, k]]."""
    y = ys[slot[:, 0]].float() * w[:, 0:1]
    for k in range(1, slot.shape[1]):
        y = y + ys[slot[:, k]].float() * w[:, k : k + 1]
    return y.to(BF16)


def place_gradients(ys, dys, w):
    """Per place: the gradient of its weight, and its output gradient w * dys."""
    ys, dys = ys.float(), dys.float()
    return (ys * dys).sum(-1), (dys * w).to(BF16)


def gather_sum(dxs, slot):
    x = dxs[slot[:, 0]].float()
    for k in range(1, slot.shape[1]):
        x = x + dxs[slot[:, k]].float()
    return x.to(BF16)


def scaled_softmax(logits, scale):
    """Per row: scale * softmax in bf16, the largest logit, the log of the sum of exponentials."""
    x = logits.float()
    peak = x.amax(-1, keepdim=True)
    p = (x - peak).exp()
    norm = p.sum(-1, keepdim=True)
    return (p * (scale / norm)).to(BF16), peak, norm.log() + peak


def head_gradient(logits, target, scale):
    """Per row: loss, whether the target is the best, and scale * (softmax - one-hot)."""
    grad, peak, lse = scaled_softmax(logits, scale)
    aim = logits.gather(1, target).float()
    loss = lse - aim
    grad.scatter_(1, target, (((-loss).exp() - 1) * scale).to(BF16))
    return loss, aim >= peak, grad


def masked_softmax(scores, mask, scale: float):
    return torch.softmax(scores.float() * scale + mask.float(), -1).to(BF16)


def masked_softmax_backward(p, dp, scale: float):
    p, dp = p.float(), dp.float()
    return (p * (dp - (p * dp).sum(-1, keepdim=True)) * scale).to(BF16)


if os.environ.get("WIDEEP_DEMO_EAGER") != "1":
    _dynamic = ("swiglu_forward", "swiglu_backward", "combine", "place_gradients",
                "gather_sum", "norm_forward", "norm_backward")
    _static = ("add_norm_forward", "add_norm_backward", "rotate", "scaled_softmax",
               "masked_softmax", "masked_softmax_backward")
    torch._dynamo.config.cache_size_limit = 64
    for _name in _dynamic + _static:
        globals()[_name] = torch.compile(globals()[_name], dynamic=_name in _dynamic)
