#!/usr/bin/env python3
"""Golden sets of odd shapes with random weights, computed by the transformers library in float32.

Usage: python3 -m venv V; V/bin/pip install torch==2.15.0 transformers==5.23.0 safetensors
       V/bin/python tools/golden/make.py DIR [NAME ...]
       build/release/wideep golden DIR/*
Shapes that divide by nothing, every branch of the routers, tied heads, one key-value head, dense layers in between: what
`tests/golden` has no set for. It is run by hand, because torch is larger than everything else together.
"""
import json
import pathlib
import random
import sys

import torch
import transformers
from safetensors.torch import save_file

PROMPT_LENGTHS = (1, 17, 150)
NEW_TOKENS = 24

COMMON = dict(hidden_act="silu", attention_bias=False, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False)
V3 = dict(
    COMMON, model_type="deepseek_v3", architectures=["DeepseekV3ForCausalLM"], hidden_size=204, intermediate_size=176,
    num_hidden_layers=4, first_k_dense_replace=2, num_attention_heads=3, num_key_value_heads=3, q_lora_rank=72,
    kv_lora_rank=48, qk_nope_head_dim=24, qk_rope_head_dim=8, v_head_dim=40, n_routed_experts=9, num_experts_per_tok=3,
    n_shared_experts=2, moe_intermediate_size=56, n_group=3, topk_group=2, topk_method="noaux_tc",
    scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=1.7, vocab_size=333,
    max_position_embeddings=2048, rms_norm_eps=1e-5, rope_theta=50000.0, rope_interleave=True)
V2 = dict(
    COMMON, model_type="deepseek_v2", architectures=["DeepseekV2ForCausalLM"], hidden_size=168, intermediate_size=88,
    num_hidden_layers=3, first_k_dense_replace=1, num_attention_heads=3, num_key_value_heads=3, q_lora_rank=None,
    kv_lora_rank=40, qk_nope_head_dim=16, qk_rope_head_dim=24, v_head_dim=16, n_routed_experts=12,
    num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=48, n_group=1, topk_group=1,
    topk_method="greedy", scoring_func="softmax", norm_topk_prob=False, routed_scaling_factor=1.0, vocab_size=500,
    max_position_embeddings=1024, rms_norm_eps=1e-6, rope_theta=10000.0)
QWEN3 = dict(
    COMMON, model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], hidden_size=136, intermediate_size=120,
    num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2, head_dim=24, num_experts=7,
    num_experts_per_tok=3, moe_intermediate_size=40, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[],
    vocab_size=257, max_position_embeddings=1024, rms_norm_eps=1e-6, rope_theta=1000000.0)


def yarn(factor, original, mscale):
    return {"type": "yarn", "rope_type": "yarn", "factor": factor, "beta_fast": 32, "beta_slow": 1, "mscale": mscale,
            "mscale_all_dim": mscale, "original_max_position_embeddings": original}


SETS = {
    "v3-odd": V3,
    "v3-yarn": dict(V3, rope_scaling=yarn(8, 64, 1.0), max_position_embeddings=512),
    "v3-all-experts": dict(V3, n_group=1, topk_group=1, n_shared_experts=1, num_experts_per_tok=9),
    "v3-plain-q": dict(V3, q_lora_rank=None, norm_topk_prob=False, first_k_dense_replace=0, qk_rope_head_dim=16),
    "v3-wide": dict(V3, hidden_size=544, num_attention_heads=17, num_key_value_heads=17, kv_lora_rank=160, v_head_dim=8,
                    n_routed_experts=33, n_group=11, topk_group=3, num_experts_per_tok=6, moe_intermediate_size=136),
    "v2-odd": V2,
    "v2-groups": dict(V2, topk_method="group_limited_greedy", n_group=4, topk_group=2, routed_scaling_factor=16.0,
                      q_lora_rank=56, num_experts_per_tok=4),
    "v2-yarn": dict(V2, rope_scaling=yarn(40, 32, 0.707)),
    "qwen3-odd": QWEN3,
    "qwen3-dense-between": dict(QWEN3, decoder_sparse_step=2, mlp_only_layers=[1], norm_topk_prob=False),
    "qwen3-tied": dict(QWEN3, tie_word_embeddings=True, num_key_value_heads=6, head_dim=16, num_experts=64,
                       num_experts_per_tok=8),
    "qwen3-one-head": dict(QWEN3, num_key_value_heads=1, head_dim=128, num_experts_per_tok=1, vocab_size=1031),
}


def random_model(config, seed):
    """With weights that bfloat16 holds exactly."""
    torch.manual_seed(seed)
    settings = transformers.AutoConfig.for_model(**config)
    settings._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(settings).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn_like(weight)
            if "norm" in name:
                noise = 1 + 0.1 * noise
            elif "embed" not in name:
                noise = noise * 1.3 / weight.shape[-1] ** 0.5
            weight.copy_(noise.bfloat16().float())
        for name, buffer in model.named_buffers():
            if "e_score_correction_bias" in name:
                buffer.copy_(0.05 * torch.randn_like(buffer))
    return model


def tensors(model, config):
    """In the layout of a released checkpoint: experts one by one."""
    for name, value in model.state_dict().items():
        prefix = name.rsplit(".", 1)[0]
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        if name.endswith("experts.gate_up_proj"):
            for expert, both in enumerate(value):
                gate, up = both.chunk(2, 0)
                yield f"{prefix}.{expert}.gate_proj.weight", gate
                yield f"{prefix}.{expert}.up_proj.weight", up
        elif name.endswith("experts.down_proj"):
            for expert, down in enumerate(value):
                yield f"{prefix}.{expert}.down_proj.weight", down
        else:
            yield name, value


def stored(name, value):
    dtype = torch.float32 if name.endswith("e_score_correction_bias") else torch.bfloat16
    return value.to(dtype).contiguous().clone()


@torch.no_grad()
def expected(model, config, seed):
    rng = random.Random(seed)
    values = {}
    for i, length in enumerate(PROMPT_LENGTHS):
        tokens = torch.tensor([[rng.randrange(2, config["vocab_size"]) for _ in range(length)]])
        result = model(tokens, output_hidden_states=True)
        values[f"prompt{i}.input_ids"] = tokens[0].int()
        if i < 2:
            values[f"prompt{i}.logits"] = result.logits[0].clone()
        else:
            values[f"prompt{i}.logits_last8"] = result.logits[0, -8:].clone()
        if i == 1:
            embedded, *hidden, final = result.hidden_states  # the last one is behind the final norm
            values["prompt1.embed"] = embedded[0].clone()
            values["prompt1.final_norm"] = final[0].clone()
            for layer, rows in enumerate(hidden):
                values[f"prompt1.hidden.{layer}"] = rows[0].clone()
        greedy, logprobs = [], []
        for _ in range(NEW_TOKENS):
            probabilities = torch.log_softmax(model(tokens).logits[0, -1], -1)
            greedy.append(int(probabilities.argmax()))
            logprobs.append(float(probabilities.max()))
            tokens = torch.cat([tokens, torch.tensor([[greedy[-1]]])], 1)
        values[f"prompt{i}.greedy_ids"] = torch.tensor(greedy, dtype=torch.int32)
        values[f"prompt{i}.greedy_logprobs"] = torch.tensor(logprobs)
    return values


def main():
    folder, *names = sys.argv[1:]
    for seed, (name, config) in enumerate(SETS.items(), 1):
        if names and name not in names:
            continue
        path = pathlib.Path(folder) / name
        (path / "expected").mkdir(parents=True, exist_ok=True)
        model = random_model(config, seed)
        save_file({n: stored(n, v) for n, v in tensors(model, config)}, path / "model.safetensors")
        save_file(expected(model, config, seed), path / "expected/golden.safetensors")
        (path / "config.json").write_text(json.dumps(config, indent=1))
        print(path, flush=True)


if __name__ == "__main__":
    main()
