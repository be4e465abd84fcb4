#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Logits and greedy tokens of tiny llama-type models, computed by Hugging Face transformers.

Each folder llama/<name>/ is a complete Hugging Face directory with golden.json and
logits.npy beside it; README.md describes both. Every parameter is random. The
script refuses to write a golden that could not tell a wrong implementation: it
computes each switch the wrong way round and asserts that the logits then differ by
at least ten times the gate.
"""
import json
import math
import os

import numpy as np
import torch
from transformers import (LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

from common import (HERE, MARGIN, PROMPT, STEPS, VOCAB, edited, entropy_ratio, find, greedy,
                    logits_of, main, with_config, with_patch, write, zero_bias)

OUT = os.path.join(HERE, "llama")
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}
LLAMA, QWEN2, QWEN3 = ((LlamaConfig, LlamaForCausalLM), (Qwen2Config, Qwen2ForCausalLM),
                       (Qwen3Config, Qwen3ForCausalLM))

BASE = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, head_dim=8, max_position_embeddings=128,
            rms_norm_eps=1e-5, hidden_act="silu", tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            bos_token_id=None, eos_token_id=None, pad_token_id=None)

# name: (class, what differs from BASE)
CASES = {
    "base": (LLAMA, {}),
    "gqa": (LLAMA, dict(num_key_value_heads=2)),
    "mqa": (LLAMA, dict(num_key_value_heads=1)),
    "qkv_bias": (QWEN2, {}),
    "qk_norm": (QWEN3, {}),
    "tied": (LLAMA, dict(tie_word_embeddings=True)),
    "rope_theta": (LLAMA, dict(rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "rope_llama3": (LLAMA, dict(head_dim=16, num_attention_heads=2, num_key_value_heads=2,
                                rope_parameters=LLAMA3)),
    "rope_linear": (LLAMA, dict(rope_parameters=LINEAR)),
    "bias": (LLAMA, dict(attention_bias=True, mlp_bias=True)),
    "head_dim": (LLAMA, dict(head_dim=12)),
    "inter_88": (LLAMA, dict(intermediate_size=88)),
    "inter_50": (LLAMA, dict(intermediate_size=50)),
    "act_gelu": (LLAMA, dict(hidden_act="gelu")),
    "act_gelu_tanh": (LLAMA, dict(hidden_act="gelu_pytorch_tanh")),
    "act_relu": (LLAMA, dict(hidden_act="relu")),
    "all_llama": (LLAMA, dict(num_key_value_heads=2, head_dim=12, intermediate_size=50,
                              hidden_act="gelu_pytorch_tanh", attention_bias=True, mlp_bias=True,
                              tie_word_embeddings=True, rms_norm_eps=1e-6,
                              rope_parameters={**LLAMA3, "rope_theta": 500.0})),
    "all_qwen2": (QWEN2, dict(num_key_value_heads=2, intermediate_size=50, hidden_act="gelu",
                              tie_word_embeddings=True, rope_parameters=LINEAR)),
    "all_qwen3": (QWEN3, dict(num_key_value_heads=1, head_dim=12, intermediate_size=88,
                              attention_bias=True, tie_word_embeddings=True,
                              rope_parameters={**LLAMA3, "rope_theta": 500.0})),
}


def make(kind, options):
    config = kind[0](**{**BASE, **options})
    config._attn_implementation = "eager"
    return kind[1](config).eval().float()


def randomize(model, seed):
    """Every parameter random, on a scale at which each switch can be seen.

    The residual stream is kept small (its mean square is 1e-4 .. 1e-2), so that every
    norm feels eps; q and k are large, so that attention is far from uniform.
    """
    gen = torch.Generator().manual_seed(seed)
    config = model.config

    def normal(p, scale):
        p.data.copy_(torch.randn(p.shape, generator=gen) * scale)

    for name, p in model.named_parameters():
        fan_in = p.shape[-1]
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            p.data.copy_(1.5 * (1 + 0.3 * torch.randn(p.shape, generator=gen)))
        elif name.endswith("norm.weight"):
            p.data.copy_(1 + 0.3 * torch.randn(p.shape, generator=gen))
        elif name.endswith(".bias"):
            normal(p, 0.1 if "o_proj" not in name and "down_proj" not in name else 0.02)
        elif name == "model.embed_tokens.weight":
            normal(p, 0.08)
            p.data[::4] *= 0.05
        elif "lm_head" in name:
            normal(p, 2.0 / math.sqrt(fan_in))
        elif "q_proj" in name or "k_proj" in name:
            normal(p, 1.7 / math.sqrt(fan_in))
        elif "v_proj" in name:
            normal(p, 1.0 / math.sqrt(fan_in))
        elif "o_proj" in name:
            normal(p, 0.06 / math.sqrt(fan_in))
        elif "gate_proj" in name:
            normal(p, 2.0 / math.sqrt(fan_in))
        elif "up_proj" in name:
            normal(p, 1.0 / math.sqrt(fan_in))
        elif "down_proj" in name:
            normal(p, 0.1 / math.sqrt(fan_in))
        else:
            raise SystemExit(f"no rule for parameter {name}")
    if config.tie_word_embeddings:
        # One matrix is both; the logits take their scale from the last gain.
        model.model.norm.weight.data.mul_(8.0)
    for layer in model.model.layers:
        if hasattr(layer.self_attn, "q_norm"):
            # A small first head, so that the norm of q and of k feels eps as well.
            for proj in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                proj.weight.data[: layer.self_attn.head_dim] *= 0.01
                if proj.bias is not None:
                    proj.bias.data[: layer.self_attn.head_dim] *= 0.01


# --- each switch the wrong way round -------------------------------------------------------


def rope_interleaved(q, k, cos, sin, *_args, **_kwargs):
    half = cos.shape[-1] // 2
    cos = cos[..., :half].repeat_interleave(2, -1).unsqueeze(1)
    sin = sin[..., :half].repeat_interleave(2, -1).unsqueeze(1)

    def turn(x):
        even, odd = x[..., ::2], x[..., 1::2]
        return x * cos + torch.stack((-odd, even), -1).flatten(-2) * sin

    return turn(q), turn(k)


def heads_tiled(x, n):
    return x.repeat(1, n, 1, 1)


def set_eps(model, pick, eps):
    for name, module in model.named_modules():
        if hasattr(module, "variance_epsilon") and pick in name:
            module.variance_epsilon = eps


def drop_qk_norm(model):
    for layer in model.model.layers:
        layer.self_attn.q_norm = layer.self_attn.k_norm = torch.nn.Identity()


def set_scale(model):
    config = model.config
    for layer in model.model.layers:
        layer.self_attn.scaling = (config.hidden_size / config.num_attention_heads) ** -0.5


def plain_rope(model):
    return {"rope_type": "default", "rope_theta": model.config.rope_parameters["rope_theta"]}


def hard_bands(model):
    """llama3 scaling without the smooth band: its frequencies are left as they are."""
    config, rope = model.config, model.model.rotary_emb
    d, p = config.head_dim, config.rope_parameters
    base = 1.0 / p["rope_theta"] ** (torch.arange(0, d, 2).float() / d)
    wavelength = 2 * math.pi / base
    low = p["original_max_position_embeddings"] / p["low_freq_factor"]
    rope.inv_freq = torch.where(wavelength > low, base / p["factor"], base)


def random_head(model):
    gen = torch.Generator().manual_seed(99)
    weight = model.lm_head.weight
    model.lm_head.weight = torch.nn.Parameter(torch.randn(weight.shape, generator=gen) * 0.08)


OTHER_ACT = {"silu": ["gelu", "relu"], "gelu": ["gelu_pytorch_tanh", "silu"],
             "gelu_pytorch_tanh": ["gelu", "silu"], "relu": ["silu"]}


def flips_of(model):
    """{name of the mistake: function from ids to the wrong logits}"""
    c, out = model.config, {}

    def add(name, other):
        out[name] = other if callable(other) and not isinstance(other, torch.nn.Module) else (
            lambda ids: logits_of(other, ids))

    eps = 1e-6 if c.rms_norm_eps == 1e-5 else 1e-5
    add(f"eps_{eps:g}", edited(model, lambda m: set_eps(m, "", eps)))
    norms = ["input_layernorm", "post_attention_layernorm", "model.norm"]
    if "Qwen3" in type(model).__name__:
        norms += ["q_norm", "k_norm"]
        add("no_qk_norm", edited(model, drop_qk_norm))
    for norm in norms:
        add(f"eps_{eps:g}_{norm.split('.')[-1]}", edited(model, lambda m: set_eps(m, norm, eps)))
    for act in OTHER_ACT[c.hidden_act]:
        add(f"act_{act}", with_config(model, hidden_act=act))
    theta = 500.0 if c.rope_parameters["rope_theta"] == 10000.0 else 10000.0
    add(f"theta_{theta:g}", with_config(model, rope_parameters={**c.rope_parameters,
                                                               "rope_theta": theta}))
    add("rope_interleaved", with_patch(model, "apply_rotary_pos_emb", rope_interleaved))
    add("no_rope", with_patch(model, "apply_rotary_pos_emb", lambda q, k, *_a, **_k: (q, k)))
    if c.rope_parameters["rope_type"] != "default":
        add("no_rope_scaling", with_config(model, rope_parameters=plain_rope(model)))
    if c.rope_parameters["rope_type"] == "llama3":
        add("no_smooth_band", edited(model, hard_bands))
    if 1 < c.num_key_value_heads < c.num_attention_heads:
        add("kv_heads_tiled", with_patch(model, "repeat_kv", heads_tiled))
    if c.head_dim * c.num_attention_heads != c.hidden_size:
        add("scale_of_hidden", edited(model, set_scale))
    for pick in sorted({n.split(".")[-2] for n, _ in model.named_parameters()
                        if n.endswith(".bias")}):
        add(f"no_bias_{pick}", edited(model, lambda m: zero_bias(m, pick)))
    if c.tie_word_embeddings:
        add("untied", edited(model, random_head))
    else:
        add("tied", with_config(model, tie_word_embeddings=True))
    return out


# -------------------------------------------------------------------------------------------


def acceptable(model, ids):
    """The greedy run and its margins, or None if this seed cannot serve."""
    ratio = entropy_ratio(model, ids)
    if not 0.1 < ratio < 0.8:
        return None
    tokens, margins = greedy(model, ids)
    if min(margins) < MARGIN or len(set(tokens)) < 12:
        return None
    return tokens, margins, ratio


def check_bands(config):
    """All three bands of the llama3 rule must hold a frequency."""
    p, d = config.rope_parameters, config.head_dim
    if p["rope_type"] != "llama3":
        return
    wave = 2 * math.pi * p["rope_theta"] ** (np.arange(0, d, 2) / d)
    high = p["original_max_position_embeddings"] / p["high_freq_factor"]
    low = p["original_max_position_embeddings"] / p["low_freq_factor"]
    assert (wave < high).any() and (wave > low).any() and ((wave > high) & (wave < low)).any()


def write_old_config(folder):
    """The same configuration with the key names of transformers 4."""
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    with open(os.path.join(folder, "config.v4.json"), "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")


def generate(name, number):
    kind, options = CASES[name]

    def random_model(seed):
        model = make(kind, options)
        randomize(model, seed)
        return model

    g = find(name, number, random_model, acceptable, flips_of)
    check_bands(g.model.config)
    cached = g.model.generate(torch.tensor([g.ids]), attention_mask=torch.ones(1, PROMPT, dtype=int),
                              max_new_tokens=STEPS, do_sample=False, pad_token_id=0)
    assert cached[0, PROMPT:].tolist() == g.tokens, "generate() disagrees with the plain loop"
    folder = os.path.join(OUT, name)
    write(g, folder)
    if name in ("rope_llama3", "rope_linear"):
        write_old_config(folder)


if __name__ == "__main__":
    main(__doc__, CASES, generate)
