#!/usr/bin/env python3
"""Writes a DeepSeek-V3-shaped checkpoint as GGUF, so that a peer can be timed on the same weights.

    make_gguf.py CHECKPOINT OUT.gguf [bf16 | q8_0 | q4_0]

CHECKPOINT is what `wideep make-checkpoint ds2 DIR` wrote (bf16 safetensors). Needs numpy and gguf
from PyPI. There is no vocabulary in the file: token ids only, which is all a benchmark needs.
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy

ARCH = "deepseek2"


class Checkpoint:
    """Tensors of all shards by name, as bf16 bit patterns or f32."""

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = {}
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb") as file:
                (size,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(size))
            data = numpy.memmap(path, dtype=numpy.uint8, mode="r", offset=8 + size)
            for name, entry in header.items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    self.tensors[name] = (entry["dtype"], entry["shape"], data[begin:end])

    def read(self, name):
        dtype, shape, data = self.tensors[name]
        if dtype == "BF16":
            bits = data.view(numpy.uint16).astype(numpy.uint32) << 16
            return bits.view(numpy.float32).reshape(shape)
        assert dtype == "F32", f"{name}: {dtype}"
        return numpy.array(data.view(numpy.float32)).reshape(shape)


def layer_tensors(checkpoint, layer):
    """(GGUF name, function that reads the values, whether they may be quantised)"""
    config = checkpoint.config
    source = f"model.layers.{layer}."
    target = f"blk.{layer}."
    heads, nope = config["num_attention_heads"], config["qk_nope_head_dim"]
    value, rank = config["v_head_dim"], config["kv_lora_rank"]

    def read(name):
        return lambda: checkpoint.read(source + name + ".weight")

    def kv_b():
        name = source + "self_attn.kv_b_proj.weight"
        return checkpoint.read(name).reshape(heads, nope + value, rank)

    def experts(part):
        def stack():
            names = [f"{source}mlp.experts.{e}.{part}_proj.weight"
                     for e in range(config["n_routed_experts"])]
            return numpy.stack([checkpoint.read(name) for name in names])
        return stack

    yield target + "attn_norm.weight", read("input_layernorm"), False
    yield target + "ffn_norm.weight", read("post_attention_layernorm"), False
    yield target + "attn_q_a_norm.weight", read("self_attn.q_a_layernorm"), False
    yield target + "attn_kv_a_norm.weight", read("self_attn.kv_a_layernorm"), False
    yield target + "attn_q_a.weight", read("self_attn.q_a_proj"), True
    yield target + "attn_q_b.weight", read("self_attn.q_b_proj"), True
    yield target + "attn_kv_a_mqa.weight", read("self_attn.kv_a_proj_with_mqa"), True
    yield target + "attn_k_b.weight", lambda: kv_b()[:, :nope].transpose(0, 2, 1), True
    yield target + "attn_v_b.weight", lambda: kv_b()[:, nope:], True
    yield target + "attn_output.weight", read("self_attn.o_proj"), True
    if layer < config["first_k_dense_replace"]:
        for part in ("gate", "up", "down"):
            yield f"{target}ffn_{part}.weight", read(f"mlp.{part}_proj"), True
        return
    yield target + "ffn_gate_inp.weight", read("mlp.gate"), False
    bias = source + "mlp.gate.e_score_correction_bias"
    yield target + "exp_probs_b.bias", lambda: checkpoint.read(bias), False
    for part in ("gate", "up", "down"):
        yield f"{target}ffn_{part}_exps.weight", experts(part), True
        yield f"{target}ffn_{part}_shexp.weight", read(f"mlp.shared_experts.{part}_proj"), True


def all_tensors(checkpoint):
    yield "token_embd.weight", lambda: checkpoint.read("model.embed_tokens.weight"), True
    yield "output.weight", lambda: checkpoint.read("lm_head.weight"), True
    yield "output_norm.weight", lambda: checkpoint.read("model.norm.weight"), False
    for layer in range(checkpoint.config["num_hidden_layers"]):
        yield from layer_tensors(checkpoint, layer)


def write_keys(writer, config):
    scaling = config["rope_scaling"]
    rank, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_q_lora_rank(config["q_lora_rank"])
    writer.add_kv_lora_rank(rank)
    writer.add_key_length(rank + rope)
    writer.add_value_length(rank)
    writer.add_key_length_mla(config["qk_nope_head_dim"] + rope)
    writer.add_value_length_mla(config["v_head_dim"])
    writer.add_rope_dimension_count(rope)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(scaling["factor"])
    writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    writer.add_rope_scaling_yarn_log_mul(0.1 * scaling["mscale_all_dim"])
    writer.add_expert_count(config["n_routed_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_group_count(config["n_group"])
    writer.add_expert_group_used_count(config["topk_group"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_tokenizer_model("none")


def encode(values, quantisation):
    values = numpy.ascontiguousarray(values, dtype=numpy.float32)
    if quantisation == gguf.GGMLQuantizationType.F32:
        return values
    return gguf.quants.quantize(values, quantisation)


def main():
    checkpoint = Checkpoint(pathlib.Path(sys.argv[1]))
    kind = sys.argv[3] if len(sys.argv) > 3 else "bf16"
    wanted = gguf.GGMLQuantizationType[kind.upper()]
    writer = gguf.GGUFWriter(sys.argv[2], ARCH)
    write_keys(writer, checkpoint.config)
    types = {}
    for name, read, may_quantise in all_tensors(checkpoint):
        types[name] = wanted if may_quantise else gguf.GGMLQuantizationType.F32
        shape = gguf.quants.quant_shape_to_byte_shape(read().shape, types[name]) \
            if types[name] != gguf.GGMLQuantizationType.F32 else read().shape
        dtype = numpy.float32 if types[name] == gguf.GGMLQuantizationType.F32 else numpy.uint8
        nbytes = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
        writer.add_tensor_info(name, shape, numpy.dtype(dtype), nbytes, types[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, read, _ in all_tensors(checkpoint):
        writer.write_tensor_data(encode(read(), types[name]))
    writer.close()


if __name__ == "__main__":
    main()
