"""The training form of the model: DeepSeek-V3's mathematics, written for speed on a CPU.

Weights live twice: float32 masters for the optimizer, and a bfloat16 copy that the forward and
backward pass use (on processors with bf16 dot products or AMX that is up to ten times faster).
Matrices are kept [in, out], experts stacked [expert, in, out]; export.py writes the Hugging Face
layout. reference.py is the plain form of the same mathematics, and what is evaluated.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F

import fused

BF16 = torch.bfloat16


@dataclasses.dataclass(frozen=True)
class Shape:
    vocab: int = 4096
    hidden: int = 256
    layers: int = 5
    dense_layers: int = 1
    dense_width: int = 384
    heads: int = 4
    q_lora: int = 128
    kv_lora: int = 64
    nope: int = 32
    rope: int = 32
    v: int = 32
    experts: int = 32
    expert_width: int = 64
    groups: int = 4
    top_groups: int = 2
    top_k: int = 4
    routed_scale: float = 2.5
    eps: float = 1e-6
    rope_theta: float = 10000.0
    yarn_factor: float = 4.0
    yarn_original: int = 1024
    max_positions: int = 4096


def yarn_frequencies(s):
    def corr(turns):
        length = s.yarn_original / (turns * 2 * math.pi)
        return s.rope * math.log(length) / (2 * math.log(s.rope_theta))

    low, high = max(math.floor(corr(32)), 0), min(math.ceil(corr(1)), s.rope - 1)
    j = torch.arange(s.rope // 2, dtype=torch.float64)
    ramp = ((j - low) / max(high - low, 0.001)).clamp(0, 1)
    return s.rope_theta ** (-2 * j / s.rope) * ((1 - ramp) + ramp / s.yarn_factor)


def softmax_scale(s):
    return (s.nope + s.rope) ** -0.5 * (0.1 * math.log(s.yarn_factor) + 1) ** 2


def attention_shapes(s):
    return {
        "input_layernorm": (s.hidden,), "q_a": (s.hidden, s.q_lora), "q_a_norm": (s.q_lora,),
        "q_b": (s.q_lora, s.heads * (s.nope + s.rope)), "kv_a": (s.hidden, s.kv_lora + s.rope),
        "kv_a_norm": (s.kv_lora,), "kv_b": (s.kv_lora, s.heads * (s.nope + s.v)),
        "o": (s.heads * s.v, s.hidden), "post_attention_layernorm": (s.hidden,),
    }


def parameter_shapes(s):
    """name -> shape; layer s.layers is the multi-token-prediction layer."""
    shapes = {"embed": (s.vocab, s.hidden), "norm": (s.hidden,), "lm_head": (s.hidden, s.vocab)}
    for l in range(s.layers + 1):
        layer = attention_shapes(s)
        if l < s.dense_layers:
            layer |= {"gate_up": (s.hidden, 2 * s.dense_width), "down": (s.dense_width, s.hidden)}
        else:
            layer |= {
                "router": (s.hidden, s.experts),
                "experts_gate_up": (s.experts, s.hidden, 2 * s.expert_width),
                "experts_down": (s.experts, s.expert_width, s.hidden),
                "gate_up": (s.hidden, 2 * s.expert_width), "down": (s.expert_width, s.hidden),
            }
        if l == s.layers:
            layer |= {"enorm": (s.hidden,), "hnorm": (s.hidden,), "head_norm": (s.hidden,),
                      "eh_proj": (2 * s.hidden, s.hidden)}
        shapes |= {f"{l}.{name}": shape for name, shape in layer.items()}
    return shapes


def initial_parameters(s, seed):
    gen = torch.Generator().manual_seed(seed)
    masters = {}
    for name, shape in parameter_shapes(s).items():
        if len(shape) == 1:
            masters[name] = torch.ones(shape)
            continue
        std = {"embed": 0.05, "router": 0.02}.get(name.split(".")[-1], 0.7 * shape[-2] ** -0.5)
        if name.endswith((".o", "down")):
            std *= (2 * s.layers) ** -0.5
        masters[name] = torch.randn(shape, generator=gen) * std
    return masters


class Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, w, eps):
        x, r = fused.norm_forward(h, w, eps)
        ctx.save_for_backward(h, w, r)
        return x

    @staticmethod
    def backward(ctx, dx):
        return *fused.norm_backward(*ctx.saved_tensors, dx), None


class AddNorm(torch.autograd.Function):
    """(h + y, rms(h + y, w))"""

    @staticmethod
    def forward(ctx, h, y, w, eps):
        h, x, r = fused.add_norm_forward(h, y, w, eps)
        ctx.save_for_backward(h, w, r)
        return h, x

    @staticmethod
    def backward(ctx, dh, dx):
        return *fused.add_norm_backward(*ctx.saved_tensors, dh, dx), None


class Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gu):
        ctx.save_for_backward(gu)
        return fused.swiglu_forward(gu)

    @staticmethod
    def backward(ctx, da):
        return fused.swiglu_backward(*ctx.saved_tensors, da)


class Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return fused.rotate(x, cos, sin)

    @staticmethod
    def backward(ctx, dy):
        cos, sin = ctx.saved_tensors
        return fused.rotate(dy, cos, -sin), None, None


class MaskedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, mask, scale):
        p = fused.masked_softmax(scores, mask, scale)
        ctx.scale = scale
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx, dp):
        return fused.masked_softmax_backward(*ctx.saved_tensors, dp, ctx.scale), None, None


class Experts(torch.autograd.Function):
    """Routed experts as three batched matrix products over rows sorted by expert.

    Each expert's rows are padded to the largest count; no row is dropped. All movement, forward
    and backward, is by gathers: `slot` [T, k] is the place of row (t, k), `source` [E * cap] the
    token in a place (T for padding).
    """

    @staticmethod
    def forward(ctx, x, weight, gate_up, down, slot, source):
        experts, hidden, _ = gate_up.shape
        padded = torch.cat([x, x.new_zeros(1, hidden)])
        xs = padded.index_select(0, source).view(experts, -1, hidden)
        gu = torch.bmm(xs, gate_up)
        act = fused.swiglu_forward(gu)
        ys = torch.bmm(act, down).view(-1, hidden)
        ctx.save_for_backward(xs, gu, act, ys, weight, gate_up, down, slot, source)
        return fused.combine(ys, slot, weight)

    @staticmethod
    def backward(ctx, dy):
        xs, gu, act, ys, weight, gate_up, down, slot, source = ctx.saved_tensors
        experts, _, hidden = xs.shape
        place_weight = weight.new_zeros(source.shape[0], 1)
        place_weight[slot.reshape(-1), 0] = weight.reshape(-1)
        padded = torch.cat([dy, dy.new_zeros(1, hidden)])
        d_place, dys = fused.place_gradients(ys, padded.index_select(0, source), place_weight)
        d_weight, dys = d_place[slot], dys.view(experts, -1, hidden)
        d_down = torch.bmm(act.transpose(1, 2), dys)
        dgu = fused.swiglu_backward(gu, torch.bmm(dys, down.transpose(1, 2)))
        d_gate_up = torch.bmm(xs.transpose(1, 2), dgu)
        dxs = torch.bmm(dgu, gate_up.transpose(1, 2)).view(-1, hidden)
        return fused.gather_sum(dxs, slot), d_weight, d_gate_up, d_down, None, None


class HeadLoss(torch.autograd.Function):
    """Weighted mean of the cross entropy of hidden @ head; also the plain mean and the hit rate.

    Gradients are made at once, chunk by chunk, so the logits are never kept.
    """

    CHUNK = 512

    @staticmethod
    def forward(ctx, hidden, head, target, weight):
        rows = len(target)
        spare = -rows % HeadLoss.CHUNK
        hidden = torch.cat([hidden, hidden.new_zeros(spare, hidden.shape[1])])
        target = torch.cat([target, target.new_zeros(spare)])[:, None]
        scale = torch.cat([weight / weight.sum(), weight.new_zeros(spare)])[:, None]
        d_hidden, d_head = torch.empty_like(hidden), torch.zeros(head.shape)
        losses, hits = [], []
        for a in range(0, len(target), HeadLoss.CHUNK):
            span = slice(a, a + HeadLoss.CHUNK)
            loss, hit, grad = fused.head_gradient(hidden[span] @ head, target[span], scale[span])
            losses.append(loss)
            hits.append(hit)
            torch.mm(grad, head.t(), out=d_hidden[span])
            d_head.add_(hidden[span].t() @ grad)
        ctx.save_for_backward(d_hidden[:rows], d_head.to(head.dtype))
        losses, hits = torch.cat(losses), torch.cat(hits).float()
        return (losses * scale).sum(), losses[:rows].mean(), hits[:rows].mean()

    @staticmethod
    def backward(ctx, d_loss, *_):
        d_hidden, d_head = ctx.saved_tensors
        return d_hidden * d_loss, d_head * d_loss, None, None


class Model:
    """The bf16 forward pass over packed rows. `p` are the bf16 leaves, `bias` the router biases."""

    def __init__(self, shape, parameters, bias):
        self.s, self.p, self.bias = shape, parameters, bias
        self.freq = yarn_frequencies(shape)
        self.scale = softmax_scale(shape)
        self.load = {}  # layer -> tokens per expert in the last pass

    def attention(self, l, x, rows, mask, cos, sin):
        s, p = self.s, self.p
        n = x.shape[0]
        q = Norm.apply(x @ p[f"{l}.q_a"], p[f"{l}.q_a_norm"], s.eps) @ p[f"{l}.q_b"]
        q = q.view(n, s.heads, s.nope + s.rope)
        q_nope, q_pe = q.split([s.nope, s.rope], -1)
        t = x @ p[f"{l}.kv_a"]
        c_kv, k_pe = t.split([s.kv_lora, s.rope], -1)
        kv = Norm.apply(c_kv, p[f"{l}.kv_a_norm"], s.eps) @ p[f"{l}.kv_b"]
        k_nope, v = kv.view(n, s.heads, s.nope + s.v).split([s.nope, s.v], -1)
        q_pe = Rotate.apply(q_pe, cos, sin)
        k_pe = Rotate.apply(k_pe[:, None], cos, sin).expand(-1, s.heads, -1)
        q = torch.cat([q_nope, q_pe], -1).view(rows, -1, s.heads, s.nope + s.rope).transpose(1, 2)
        k = torch.cat([k_nope, k_pe], -1).view(rows, -1, s.heads, s.nope + s.rope).transpose(1, 2)
        v = v.reshape(rows, -1, s.heads, s.v).transpose(1, 2)
        probs = MaskedSoftmax.apply(torch.matmul(q, k.transpose(2, 3)), mask, self.scale)
        out = torch.matmul(probs, v)
        return out.transpose(1, 2).reshape(n, s.heads * s.v) @ p[f"{l}.o"]

    def route(self, l, x, valid):
        s = self.s
        scores = torch.sigmoid(x.float() @ self.p[f"{l}.router"].float())
        with torch.no_grad():
            choice = scores + self.bias[l]
            grouped = choice.view(-1, s.groups, s.experts // s.groups)
            best = grouped.topk(2, -1).values.sum(-1).topk(s.top_groups, -1).indices
            keep = torch.zeros(len(x), s.groups, dtype=torch.bool).scatter_(1, best, True)
            choice = grouped.masked_fill(~keep[..., None], -math.inf).flatten(1)
            ids = choice.topk(s.top_k, -1).indices
            self.load[l] = torch.bincount(ids[valid].reshape(-1), minlength=s.experts)
        w = scores.gather(1, ids)
        return ids, w / (w.sum(-1, keepdim=True) + 1e-20) * s.routed_scale

    def places(self, ids):
        """slot and source of Experts, from the expert ids [T, k]."""
        flat = ids.reshape(-1)
        order = torch.argsort(flat, stable=True)
        count = torch.bincount(flat, minlength=self.s.experts)
        cap = (int(count.max()) + 15) // 16 * 16
        start = torch.cumsum(count, 0) - count
        sorted_ids = flat[order]
        place = sorted_ids * cap + torch.arange(len(flat)) - start[sorted_ids]
        slot = torch.empty_like(flat)
        slot[order] = place
        source = torch.full((self.s.experts * cap,), len(ids))
        source[place] = order // ids.shape[1]
        return slot.view_as(ids), source

    def feed_forward(self, l, x, valid):
        p = self.p
        y = Swiglu.apply(x @ p[f"{l}.gate_up"]) @ p[f"{l}.down"]
        if l < self.s.dense_layers:
            return y
        ids, w = self.route(l, x, valid)
        slot, source = self.places(ids)
        return y + Experts.apply(x, w, p[f"{l}.experts_gate_up"], p[f"{l}.experts_down"], slot,
                                 source)

    def layer(self, l, h, y, rows, mask, cos, sin, valid):
        """One layer; the residual stream is h + y, added inside the fused norms."""
        p, eps = self.p, self.s.eps
        h, x = AddNorm.apply(h, y, p[f"{l}.input_layernorm"], eps)
        y = self.attention(l, x, rows, mask, cos, sin)
        h, x = AddNorm.apply(h, y, p[f"{l}.post_attention_layernorm"], eps)
        return h, self.feed_forward(l, x, valid)

    def losses(self, ids, segment, position, loss_mask):
        """(weighted loss, plain loss, hit rate) of the next token, and of the one after by MTP."""
        s, p = self.s, self.p
        rows, width = ids.shape
        angle = position.reshape(-1, 1) * self.freq
        cos, sin = angle.cos().float()[:, None], angle.sin().float()[:, None]
        same = segment[:, :, None] == segment[:, None, :]
        causal = torch.ones(width, width, dtype=torch.bool).tril()
        mask = torch.zeros(same.shape, dtype=BF16).masked_fill_(~(same & causal), -1e4)[:, None]
        valid = (segment > 0).reshape(-1)

        h = torch.zeros(rows * width, s.hidden)
        y = F.embedding(ids.reshape(-1), p["embed"])
        for l in range(s.layers):
            h, y = self.layer(l, h, y, rows, mask, cos, sin, valid)
        h = AddNorm.apply(h, y, p["norm"], s.eps)[1]

        def targets(shift):
            """Flat places whose token `shift` later is an answer token of the same segment."""
            wanted = torch.zeros_like(segment, dtype=torch.bool)
            same = segment[:, shift:] == segment[:, :-shift]
            wanted[:, :-shift] = (loss_mask[:, shift:] > 0) & same
            at = wanted.reshape(-1).nonzero()[:, 0]
            return at, ids.reshape(-1)[at + shift], loss_mask.reshape(-1)[at + shift].float()

        at, target, weight = targets(1)
        main = HeadLoss.apply(h[at], p["lm_head"], target, weight)

        following = torch.roll(ids, -1, 1).reshape(-1)
        e = Norm.apply(F.embedding(following, p["embed"]), p[f"{s.layers}.enorm"], s.eps)
        x = Norm.apply(h, p[f"{s.layers}.hnorm"], s.eps)
        y = torch.cat([e, x], -1) @ p[f"{s.layers}.eh_proj"]
        h = torch.zeros(rows * width, s.hidden)
        h, y = self.layer(s.layers, h, y, rows, mask, cos, sin, valid)
        x = AddNorm.apply(h, y, p[f"{s.layers}.head_norm"], s.eps)[1]
        at, target, weight = targets(2)
        return main, HeadLoss.apply(x[at], p["lm_head"], target, weight)
