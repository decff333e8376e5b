"""The plain form of the model: reads the exported directory, computes in float32.

This is the mathematics that any engine must reproduce. With `rounded=True` the output of every
linear, norm, RoPE, attention and residual add is rounded to bfloat16, as a bf16 engine would.
"""

import json
import math

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


class Reference:
    def __init__(self, folder, rounded=False):
        self.c = json.loads((folder / "config.json").read_text())
        self.w = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
        self.round = (lambda x: x.bfloat16().float()) if rounded else (lambda x: x)
        self.trace = None  # dict: filled with intermediate values when set
        c, y = self.c, self.c["rope_scaling"]
        d, base, original = c["qk_rope_head_dim"], c["rope_theta"], \
            y["original_max_position_embeddings"]

        def corr(turns):
            return d * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

        low = max(math.floor(corr(y["beta_fast"])), 0)
        high = min(math.ceil(corr(y["beta_slow"])), d - 1)
        j = torch.arange(d // 2, dtype=torch.float64)
        ramp = ((j - low) / max(high - low, 0.001)).clamp(0, 1)
        self.freq = base ** (-2 * j / d) * ((1 - ramp) + ramp / y["factor"])
        m = 0.1 * y["mscale_all_dim"] * math.log(y["factor"]) + 1
        self.scale = (c["qk_nope_head_dim"] + d) ** -0.5 * m * m

    def linear(self, name, x):
        return self.round(F.linear(x, self.w[name + ".weight"]))

    def norm(self, name, x):
        r = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.c["rms_norm_eps"])
        return self.round(x * r * self.w[name + ".weight"])

    def rope(self, x, position):
        """x [B, L, heads, d], position [B, L]; interleaved pairs."""
        angle = (position[..., None] * self.freq)[:, :, None]
        cos, sin = angle.cos().float(), angle.sin().float()
        a, b = x[..., 0::2], x[..., 1::2]
        return self.round(torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2))

    def attention(self, name, x, position, cache, visible):
        """visible [B, L, keys]: which cached places each token may look at."""
        c = self.c
        heads, nope, v_dim = c["num_attention_heads"], c["qk_nope_head_dim"], c["v_head_dim"]
        b, n, _ = x.shape
        q = self.linear(name + ".q_a_proj", x)
        q = self.linear(name + ".q_b_proj", self.norm(name + ".q_a_layernorm", q))
        q_nope, q_pe = q.view(b, n, heads, -1).split([nope, c["qk_rope_head_dim"]], -1)
        t = self.linear(name + ".kv_a_proj_with_mqa", x)
        c_kv, k_pe = t.split([c["kv_lora_rank"], c["qk_rope_head_dim"]], -1)
        c_kv = self.norm(name + ".kv_a_layernorm", c_kv)
        q_pe, k_pe = self.rope(q_pe, position), self.rope(k_pe[:, :, None], position)[:, :, 0]
        if cache is not None:
            if name in cache:
                c_kv = torch.cat([cache[name][0], c_kv], 1)
                k_pe = torch.cat([cache[name][1], k_pe], 1)
            cache[name] = (c_kv, k_pe)
        kv = self.linear(name + ".kv_b_proj", c_kv).view(b, -1, heads, nope + v_dim)
        k_nope, v = kv.split([nope, v_dim], -1)
        scores = torch.einsum("bqhd,bkhd->bhqk", q_nope, k_nope)
        scores = (scores + torch.einsum("bqhd,bkd->bhqk", q_pe, k_pe)) * self.scale
        probs = torch.softmax(scores.masked_fill(~visible[:, None], -math.inf), -1)
        out = self.round(torch.einsum("bhqk,bkhd->bqhd", probs, v).reshape(b, n, -1))
        return self.linear(name + ".o_proj", out)

    def mlp(self, name, x):
        gate, up = self.linear(name + ".gate_proj", x), self.linear(name + ".up_proj", x)
        return self.linear(name + ".down_proj", self.round(F.silu(gate) * up))

    def route(self, name, x):
        c = self.c
        scores = torch.sigmoid(F.linear(x, self.w[name + ".gate.weight"]))
        choice = scores + self.w[name + ".gate.e_score_correction_bias"]
        grouped = choice.view(len(x), c["n_group"], -1)
        best = grouped.topk(2, -1).values.sum(-1).topk(c["topk_group"], -1).indices
        keep = torch.zeros(len(x), c["n_group"], dtype=torch.bool).scatter_(1, best, True)
        choice = grouped.masked_fill(~keep[..., None], -math.inf).flatten(1)
        ids = choice.topk(c["num_experts_per_tok"], -1).indices
        w = scores.gather(1, ids)
        return ids, w / (w.sum(-1, keepdim=True) + 1e-20) * c["routed_scaling_factor"]

    def feed_forward(self, layer, x):
        name = f"model.layers.{layer}.mlp"
        if layer < self.c["first_k_dense_replace"]:
            return self.mlp(name, x)
        flat = x.flatten(0, 1)
        ids, w = self.route(name, flat)
        y = torch.zeros_like(flat)
        for e in ids.unique().tolist():
            rows, k = (ids == e).nonzero(as_tuple=True)
            y.index_add_(0, rows, self.mlp(f"{name}.experts.{e}", flat[rows]) * w[rows, k, None])
        if self.trace is not None:
            self.trace[f"moe.{layer}.topk_ids"] = ids
            self.trace[f"moe.{layer}.topk_weights"] = w
        return self.round(y + self.mlp(name + ".shared_experts", flat)).view_as(x)

    def layer(self, layer, h, position, cache, visible):
        name = f"model.layers.{layer}"
        x = self.norm(name + ".input_layernorm", h)
        h = self.round(h + self.attention(name + ".self_attn", x, position, cache, visible))
        x = self.norm(name + ".post_attention_layernorm", h)
        return self.round(h + self.feed_forward(layer, x))

    def hidden(self, ids, position, cache, visible):
        """Hidden state after the final norm, [B, L, hidden]."""
        h = self.w["model.embed_tokens.weight"][ids]
        for l in range(self.c["num_hidden_layers"]):
            h = self.layer(l, h, position, cache, visible)
            if self.trace is not None:
                self.trace[f"hidden.{l}"] = h
        return self.norm("model.norm", h)

    def logits(self, hidden):
        return F.linear(hidden, self.w["lm_head.weight"])

    def plain(self, ids):
        """One pass over [B, L] without padding or cache."""
        position = torch.arange(ids.shape[1]).expand_as(ids)
        visible = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        return self.hidden(ids, position, None, visible.expand(len(ids), -1, -1))

    def mtp_logits(self, hidden, following):
        """Entry i, from hidden i and the token that follows it, predicts the token after that."""
        l = self.c["num_hidden_layers"]
        name = f"model.layers.{l}"
        e = self.norm(name + ".enorm", self.w["model.embed_tokens.weight"][following])
        x = torch.cat([e, self.norm(name + ".hnorm", hidden)], -1)
        x = self.linear(name + ".eh_proj", x)
        position = torch.arange(following.shape[1]).expand_as(following)
        visible = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        x = self.layer(l, x, position, None, visible.expand(len(x), -1, -1))
        return self.logits(self.norm(name + ".shared_head.norm", x))

    def generate(self, prompts, max_tokens, eos=1):
        """Greedy continuations (without eos) of prompts of any lengths, as one batch."""
        width, count = max(len(p) for p in prompts), len(prompts)
        pad = torch.tensor([width - len(p) for p in prompts])
        ids = torch.full((count, width), eos)
        for row, p in enumerate(prompts):
            ids[row, pad[row] :] = torch.tensor(p)
        slots = torch.arange(width + max_tokens)
        real = slots[None] >= pad[:, None]
        eye = torch.eye(width, dtype=torch.bool)
        seen = torch.ones(width, width, dtype=torch.bool).tril() & real[:, None, :width] | eye
        cache, out = {}, [[] for _ in prompts]
        position = (slots[None, :width] - pad[:, None]).clamp(min=0)
        h = self.hidden(ids, position, cache, seen)[:, -1:]
        live = torch.ones(count, dtype=torch.bool)
        for step in range(max_tokens):
            token = self.logits(h)[:, 0].argmax(-1)
            live &= token != eos
            if not live.any():
                break
            for row in live.nonzero()[:, 0].tolist():
                out[row].append(int(token[row]))
            position = (width + step - pad)[:, None]
            h = self.hidden(token[:, None], position, cache, real[:, None, : width + step + 1])
        return out
