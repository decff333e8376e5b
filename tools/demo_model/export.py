"""Turns a training checkpoint into a Hugging Face directory, bfloat16."""

import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file

import tokenizer as tk

BF16 = torch.bfloat16


def config(s):
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "ep_size": 1,
        "first_k_dense_replace": s.dense_layers,
        "hidden_act": "silu",
        "hidden_size": s.hidden,
        "initializer_range": 0.02,
        "intermediate_size": s.dense_width,
        "kv_lora_rank": s.kv_lora,
        "max_position_embeddings": s.max_positions,
        "model_type": "deepseek_v3",
        "moe_intermediate_size": s.expert_width,
        "moe_layer_freq": 1,
        "n_group": s.groups,
        "n_routed_experts": s.experts,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "num_attention_heads": s.heads,
        "num_experts_per_tok": s.top_k,
        "num_hidden_layers": s.layers,
        "num_key_value_heads": s.heads,
        "num_nextn_predict_layers": 1,
        "pretraining_tp": 1,
        "q_lora_rank": s.q_lora,
        "qk_nope_head_dim": s.nope,
        "qk_rope_head_dim": s.rope,
        "rms_norm_eps": s.eps,
        "rope_scaling": {
            "beta_fast": 32,
            "beta_slow": 1,
            "factor": s.yarn_factor,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": s.yarn_original,
            "type": "yarn",
        },
        "rope_theta": s.rope_theta,
        "routed_scaling_factor": s.routed_scale,
        "scoring_func": "sigmoid",
        "tie_word_embeddings": False,
        "topk_group": s.top_groups,
        "topk_method": "noaux_tc",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "v_head_dim": s.v,
        "vocab_size": s.vocab,
    }


def tensors(state):
    """Hugging Face names and [out, in] matrices from the training layout."""
    s, p = state["shape"], state["masters"]
    out = {"model.embed_tokens.weight": p["embed"], "model.norm.weight": p["norm"],
           "lm_head.weight": p["lm_head"].t()}

    def mlp(name, gate_up, down):
        gate, up = gate_up.chunk(2, -1)
        out[f"{name}.gate_proj.weight"] = gate.t()
        out[f"{name}.up_proj.weight"] = up.t()
        out[f"{name}.down_proj.weight"] = down.t()

    for l in range(s.layers + 1):
        name = f"model.layers.{l}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            out[f"{name}.{norm}.weight"] = p[f"{l}.{norm}"]
        for ours, theirs in (("q_a", "q_a_proj"), ("q_b", "q_b_proj"), ("o", "o_proj"),
                             ("kv_a", "kv_a_proj_with_mqa"), ("kv_b", "kv_b_proj")):
            out[f"{name}.self_attn.{theirs}.weight"] = p[f"{l}.{ours}"].t()
        for ours, theirs in (("q_a_norm", "q_a_layernorm"), ("kv_a_norm", "kv_a_layernorm")):
            out[f"{name}.self_attn.{theirs}.weight"] = p[f"{l}.{ours}"]
        if l < s.dense_layers:
            mlp(f"{name}.mlp", p[f"{l}.gate_up"], p[f"{l}.down"])
        else:
            out[f"{name}.mlp.gate.weight"] = p[f"{l}.router"].t()
            mlp(f"{name}.mlp.shared_experts", p[f"{l}.gate_up"], p[f"{l}.down"])
            for e in range(s.experts):
                mlp(f"{name}.mlp.experts.{e}", p[f"{l}.experts_gate_up"][e],
                    p[f"{l}.experts_down"][e])
    name = f"model.layers.{s.layers}"
    out[f"{name}.enorm.weight"] = p[f"{s.layers}.enorm"]
    out[f"{name}.hnorm.weight"] = p[f"{s.layers}.hnorm"]
    out[f"{name}.eh_proj.weight"] = p[f"{s.layers}.eh_proj"].t()
    out[f"{name}.shared_head.norm.weight"] = p[f"{s.layers}.head_norm"]
    out = {k: v.to(BF16).contiguous() for k, v in out.items()}
    for l, bias in state["bias"].items():
        out[f"model.layers.{l}.mlp.gate.e_score_correction_bias"] = bias.clone()
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=pathlib.Path, required=True)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    state = torch.load(args.checkpoint, weights_only=False)

    def write(name, value):
        (args.out / name).write_text(json.dumps(value, indent=2) + "\n", "utf8")

    write("config.json", config(state["shape"]))
    write("generation_config.json", {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
                                     "do_sample": False, "temperature": 0.0,
                                     "max_new_tokens": 256})
    for name in ("tokenizer.json", "questions.json"):
        shutil.copyfile(args.corpus / name, args.out / name)
    tk.write_config(args.out, state["shape"].max_positions)
    weights = tensors(state)
    save_file(weights, args.out / "model.safetensors", {"format": "pt"})
    (args.out / "model.safetensors").chmod(0o644)
    total = sum(v.numel() for v in weights.values())
    print(f"step {state['step']}: {len(weights)} tensors, {total / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
