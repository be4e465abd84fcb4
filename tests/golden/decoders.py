#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Logits and greedy tokens of tiny decoders of many families, computed by Hugging Face transformers.

As llama.py, for the families of frontend/presets and for two blocks that
transformers has no model of; those are written here from the formulas of their papers and come with a
model.yaml instead of a config.json. Each folder decoders/<name>/ is a complete directory with golden.json
and logits.npy beside it. Every parameter is random, and no golden is written that could not tell one of
the mistakes of FLIPS.
"""
import math
import os
import re
import types

import torch
import transformers as hf
from safetensors.torch import save_file

from common import (HERE, MARGIN, VOCAB, edited, entropy_ratio, find, greedy, logits_of, main,
                    with_config, with_patch, write, zero_bias)
from llama import rope_interleaved

OUT = os.path.join(HERE, "decoders")
NO_IDS = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)
GPT = dict(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=128, n_inner=48,
           layer_norm_epsilon=1e-5, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **NO_IDS)
WIDE = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=128, **NO_IDS)
GQA = dict(WIDE, num_key_value_heads=2)


def rope(**more):
    return dict(rope_parameters={"rope_type": "default", "rope_theta": 10000.0, **more})


# --- blocks that transformers has no model of ----------------------------------------------


def rms(x, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


class Open(torch.nn.Module):
    """A pre-norm decoder with rope: SRMSNorm and SGLU (TransNormerLLM, arXiv:2307.14995), or RMSNorm
    and PolyNorm (PolyCom, arXiv:2411.03884: weight[0] belongs to the third power)."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.eps, self.poly_eps, self.theta, d, f = kind, 1e-5, 1e-6, 10000.0, 32, 48
        self.first_power = 1
        self.config = types.SimpleNamespace(tie_word_embeddings=False)
        make = torch.nn.ParameterDict
        new = lambda *shape: torch.nn.Parameter(torch.zeros(*shape))
        self.p = make({"embed": new(VOCAB, d), "head": new(VOCAB, d)})
        if kind == "polynorm":
            self.p["norm"] = new(d)
        self.layers = torch.nn.ModuleList()
        for _ in range(2):
            layer = {n: new(d, d) for n in ("q_proj", "k_proj", "v_proj", "o_proj")}
            layer["down_proj"], layer["up_proj"] = new(d, f), new(f, d)
            if kind == "polynorm":
                layer |= {"ln1": new(d), "ln2": new(d), "poly": new(3), "poly_bias": new(1)}
            else:
                layer["gate_proj"] = new(f, d)
            self.layers.append(make(layer))

    def norm(self, x, gain):
        return rms(x, self.eps) if self.kind == "transnormer" else rms(x, self.eps) * gain

    def turn(self, x):
        n, half = x.shape[-2], x.shape[-1] // 2
        angle = torch.outer(torch.arange(n).to(x), self.theta ** (-torch.arange(half).to(x) / half))
        a, b, c, s = x[..., :half], x[..., half:], angle.cos(), angle.sin()
        return torch.cat((a * c - b * s, b * c + a * s), -1)

    def attention(self, p, x):
        n = x.shape[0]
        q, k, v = ((x @ p[w].T).view(n, 4, 8).transpose(0, 1) for w in ("q_proj", "k_proj", "v_proj"))
        s = self.turn(q) @ self.turn(k).transpose(1, 2) / math.sqrt(8)
        a = torch.softmax(s.masked_fill(~torch.ones(n, n).tril().bool(), -torch.inf), -1)
        return (a @ v).transpose(0, 1).reshape(n, 32) @ p["o_proj"].T, a

    def feed_forward(self, p, x):
        up = x @ p["up_proj"].T
        if self.kind == "transnormer":
            return (self.act(x @ p["gate_proj"].T) * up) @ p["down_proj"].T
        powers = [rms(up**i, self.poly_eps) for i in (3, 2, 1)][:: self.first_power]
        return (sum(w * t for w, t in zip(p["poly"], powers)) + p["poly_bias"]) @ p["down_proj"].T

    def act(self, x):
        return x

    def forward(self, input_ids, **_):
        x, maps = self.p["embed"][input_ids[0]], []
        for p in self.layers:
            y, a = self.attention(p, self.norm(x, p["ln1"] if "ln1" in p else None))
            x = x + y
            maps.append(a[None])
            x = x + self.feed_forward(p, self.norm(x, p["ln2"] if "ln2" in p else None))
        x = self.norm(x, self.p["norm"] if "norm" in self.p else None)
        return types.SimpleNamespace(logits=(x @ self.p["head"].T)[None], attentions=maps)

    def save_pretrained(self, folder):
        os.makedirs(folder)
        names = {"embed": "model.embed_tokens.weight", "head": "lm_head.weight",
                 "norm": "model.norm.weight", "ln1": "input_layernorm.weight",
                 "ln2": "post_attention_layernorm.weight", "poly": "mlp.poly.weight",
                 "poly_bias": "mlp.poly.bias"}
        out = {names[n]: p.data for n, p in self.p.items()}
        for i, layer in enumerate(self.layers):
            for n, p in layer.items():
                part = "self_attn" if n[0] in "qkvo" else "mlp"
                name = names.get(n, f"{part}.{n}.weight")
                out[f"model.layers.{i}.{name}"] = p.data
        save_file(out, os.path.join(folder, "model.safetensors"))
        with open(os.path.join(folder, "model.yaml"), "w") as f:
            f.write(YAML[self.kind])


YAML = {
    "transnormer": """# SPDX-License-Identifier: Apache-2.0
spec: 1
name: transnormer
vocab_size: 64
hidden_size: 32
max_position_embeddings: 128
blocks:
  layer:
    - residual:
        - rms_norm: {eps: 1e-5, gain: false}
        - attention: {num_attention_heads: 4, rope: {}}
    - residual:
        - rms_norm: {eps: 1e-5, gain: false}
        - glu: {intermediate_size: 48, act: none}
model:
  - embedding
  - repeat: {times: 2, block: layer, weights: "model.layers.{i}"}
  - rms_norm: {eps: 1e-5, gain: false}
  - linear: {out: vocab_size}
weights: .
""",
    "polynorm": """# SPDX-License-Identifier: Apache-2.0
spec: 1
name: polynorm
vocab_size: 64
hidden_size: 32
max_position_embeddings: 128
blocks:
  layer:
    - residual:
        - rms_norm: {eps: 1e-5}
        - attention: {num_attention_heads: 4, rope: {}}
    - residual:
        - rms_norm: {eps: 1e-5}
        - linear: {out: 48}
        - poly_norm: {eps: 1e-6}
        - linear: {out: 32}
model:
  - embedding
  - repeat: {times: 2, block: layer, weights: "model.layers.{i}"}
  - rms_norm: {eps: 1e-5}
  - linear: {out: vocab_size}
weight_names:
  layer.linear.weight: mlp.up_proj.weight
  layer.linear2.weight: mlp.down_proj.weight
  layer.poly_norm.weight: mlp.poly.weight
  layer.poly_norm.bias: mlp.poly.bias
weights: .
""",
}

# --- mistakes -------------------------------------------------------------------------------


def flip(model, **changes):
    return lambda ids: logits_of(with_config(model, **changes), ids)


def edit(model, change):
    other = edited(model, change)
    return lambda ids: logits_of(other, ids)


def no_bias(pick):
    def change(model):
        n = sum(p.abs().sum() for name, p in model.named_parameters() if name.endswith(pick + ".bias"))
        assert n > 0, pick
        zero_bias(model, pick)
    return change


def each(model, pick):
    return [m for name, m in model.named_modules() if re.search(pick, name)]


def regroup(pick, heads):
    """q, k, v of a packed weight taken to stand one after the other instead of head by head."""
    def change(model):
        for m in each(model, pick):
            for p in (m.weight, m.bias):
                parts = p.data.view(3, heads, -1, *p.shape[1:])
                p.data = parts.transpose(0, 1).reshape(p.shape).contiguous()
    return change


def rope_half(q, k, cos, sin, *_a, **_k):
    """Pairs (i, i + n/2) where the model turns (2i, 2i + 1); cos and sin come doubled."""
    c, s = cos[..., ::2].repeat(1, 1, 2).unsqueeze(1), sin[..., ::2].repeat(1, 1, 2).unsqueeze(1)
    half = lambda x: torch.cat((-x[..., x.shape[-1] // 2:], x[..., : x.shape[-1] // 2]), -1)
    return q * c + half(q) * s, k * c + half(k) * s


def gptj_half(x, sin, cos):
    c, s = cos.repeat(1, 1, 2).unsqueeze(2), sin.repeat(1, 1, 2).unsqueeze(2)
    n = x.shape[-1] // 2
    return x * c + torch.cat((-x[..., n:], x[..., :n]), -1) * s


def plain_slopes(heads, device):
    """ALiBi slopes as if the number of heads were a power of two."""
    return torch.tensor([2 ** (-8 * (h + 1) / heads) for h in range(heads)])


def no_slopes(heads, device):
    return torch.zeros(heads)


def shift_positions(model):
    w = model.transformer.wpe.weight
    w.data = torch.roll(w.data, -1, 0)


def swap_halves(pick):
    def change(model):
        for m in each(model, pick):
            m.weight.data = torch.roll(m.weight.data, m.weight.shape[0] // 2, 0)
    return change


def swap_qk(model):
    for m in each(model, r"c_attn$"):
        for p in (m.weight, m.bias):
            d = p.shape[-1] // 3
            p.data = torch.cat((p.data[..., d:2 * d], p.data[..., :d], p.data[..., 2 * d:]), -1)


def minus_one(model):
    for m in each(model, "norm"):
        m.weight.data -= 1


def no_embed_scale(model):
    model.model.embed_tokens.embed_scale.fill_(1.0)


def set_window(model, n):
    """Layers whose attention has a window get another; no window: n None."""
    def change(other):
        other.config.sliding_window = n
        for m in each(other, "self_attn$"):
            if getattr(m, "sliding_window", None) is not None:
                m.sliding_window = n
    return edit(model, change)


def wide(model):
    """The window off: as wide as the context."""
    return set_window(model, model.config.max_position_embeddings)


def gpt_flips(m):
    return {"eps_1e-06": flip(m, layer_norm_epsilon=1e-6), "act_gelu": flip(m, activation_function="gelu"),
            "act_silu": flip(m, activation_function="silu")}


def flips_gpt2(m):
    return gpt_flips(m) | {
        "positions_off_by_one": edit(m, shift_positions), "qk_swapped": edit(m, swap_qk),
        "scale_off": flip(m, scale_attn_weights=False), "no_bias_c_attn": edit(m, no_bias("c_attn")),
        "no_bias_c_fc": edit(m, no_bias("c_fc")), "no_bias_c_proj": edit(m, no_bias("c_proj")),
        "no_bias_ln_f": edit(m, no_bias("ln_f"))}


def flips_opt(m):
    def row_0(other):
        w = other.model.decoder.embed_positions.weight
        w.data = torch.roll(w.data, 2, 0)
    return {"act_gelu": flip(m, activation_function="gelu"), "row_0": edit(m, row_0),
            "no_bias_fc1": edit(m, no_bias("fc1"))}


def flips_gptj(m):
    return gpt_flips(m) | {
        "rope_half": with_patch(m, "apply_rotary_pos_emb", gptj_half),
        "no_bias_lm_head": edit(m, no_bias("lm_head")), "no_bias_fc_in": edit(m, no_bias("fc_in")),
        "no_bias_ln_1": edit(m, no_bias("ln_1"))}


def flips_bloom(m):
    head = lambda pick: edit(m, no_bias(pick))
    return {"eps_1e-06": flip(m, layer_norm_epsilon=1e-6),
            "alibi_plain_slopes": with_patch(m, "_get_alibi_slopes", plain_slopes),
            "no_alibi": with_patch(m, "_get_alibi_slopes", no_slopes),
            "not_by_heads": edit(m, regroup("query_key_value$", 6)),
            "no_bias_query_key_value": head("query_key_value"),
            "no_bias_embedding_norm": head("word_embeddings_layernorm")}


def fraction(m, f):
    return flip(m, rope_parameters={**m.config.rope_parameters, "partial_rotary_factor": f})


def theta(m, t=500.0):
    return flip(m, rope_parameters={**m.config.rope_parameters, "rope_theta": t})


def flips_phi(m):
    return {"eps_1e-06": flip(m, layer_norm_eps=1e-6), "act_gelu": flip(m, hidden_act="gelu"),
            "fraction_1": fraction(m, 1.0), "fraction_0.25": fraction(m, 0.25), "theta_500": theta(m),
            "rope_interleaved": with_patch(m, "apply_rotary_pos_emb", rope_interleaved),
            "no_bias_dense": edit(m, no_bias("dense")), "no_bias_lm_head": edit(m, no_bias("lm_head")),
            "no_bias_fc2": edit(m, no_bias("fc2"))}


def flips_gpt_neox(m):
    return {"eps_1e-06": flip(m, layer_norm_eps=1e-6), "act_gelu_tanh": flip(m, hidden_act="gelu_new"),
            "fraction_1": fraction(m, 1.0), "theta_500": theta(m),
            "serial": flip(m, use_parallel_residual=False),
            "not_by_heads": edit(m, regroup("query_key_value$", 4)),
            "no_bias_dense": edit(m, no_bias("dense")),
            "no_bias_query_key_value": edit(m, no_bias("query_key_value"))}


def flips_gpt_neox_serial(m):
    return {"parallel": flip(m, use_parallel_residual=True), "fraction_1": fraction(m, 1.0)}


def flips_phi3(m):
    return {"eps_1e-06": flip(m, rms_norm_eps=1e-6), "act_gelu": flip(m, hidden_act="gelu"),
            "window_off": wide(m), "window_9": set_window(m, 9), "fraction_1": fraction(m, 1.0),
            "gate_and_up_swapped": edit(m, swap_halves("gate_up_proj$"))}


def flips_mistral(m):
    return {"window_off": wide(m), "window_9": set_window(m, 9), "theta_500": theta(m)}


def flips_cohere(m):
    return {"eps_1e-06": flip(m, layer_norm_eps=1e-6), "logit_scale_off": flip(m, logit_scale=1.0),
            "rope_half": with_patch(m, "apply_rotary_pos_emb", rope_half), "act_gelu": flip(m, hidden_act="gelu"),
            "theta_10000": theta(m, 10000.0)}


def flips_gemma(m):
    act = "hidden_activation" if hasattr(m.config, "hidden_activation") else "hidden_act"
    return {"eps_1e-06": flip(m, rms_norm_eps=1e-6), "gain_without_1": edit(m, minus_one),
            "embedding_unscaled": edit(m, no_embed_scale), "act_silu": flip(m, **{act: "silu"}),
            "theta_500": theta(m)}


def flips_gemma2(m):
    types = m.config.layer_types
    return flips_gemma(m) | {
        "act_relu": flip(m, hidden_activation="relu"),
        "window_off": wide(m), "window_9": set_window(m, 9),
        "layers_swapped": flip(m, layer_types=types[::-1]),
        "scores_not_capped": flip(m, attn_logit_softcapping=None),
        "logits_not_capped": flip(m, final_logit_softcapping=None),
        "scale_of_head_dim": flip(m, query_pre_attn_scalar=m.config.head_dim)}


def set_open(m, **values):
    return edit(m, lambda other: [setattr(other, k, v) for k, v in values.items()])


def flips_transnormer(m):
    return {"eps_1e-06": set_open(m, eps=1e-6), "act_silu": set_open(m, act=torch.nn.functional.silu),
            "theta_500": set_open(m, theta=500.0)}


def flips_polynorm(m):
    return {"eps_1e-06": set_open(m, eps=1e-6), "poly_eps_1e-02": set_open(m, poly_eps=1e-2),
            "powers_reversed": set_open(m, first_power=-1)}


# --- models ---------------------------------------------------------------------------------


def config(kind, **options):
    return lambda: make_hf(getattr(hf, kind + "Config"), options)


def make_hf(cls, options):
    c = cls(**options)
    c._attn_implementation = "eager"
    return getattr(hf, ARCHITECTURE[cls.__name__[:-6]])(c).eval().float()


ARCHITECTURE = {n: n + "ForCausalLM" for n in ("GPTJ", "Bloom", "Phi", "Phi3", "GPTNeoX", "Cohere", "Gemma",
                                               "Gemma2", "Mistral", "OPT")} | {"GPT2": "GPT2LMHeadModel"}
GEMMA2 = dict(GQA, num_hidden_layers=4, head_dim=12, rms_norm_eps=1e-5, sliding_window=8,
              query_pre_attn_scalar=20, attn_logit_softcapping=5.0, final_logit_softcapping=3.0)

# name: (what makes the model, its mistakes, the gain of the norm before the head, that of norms behind a
# branch, or the factor of the branch's last weight where there is none). A tied head repeats what it read
# unless the branches count for more.
CASES = {
    "gpt2": (config("GPT2", **GPT), flips_gpt2, 8, 8),
    "gptj": (config("GPTJ", **GPT, rotary_dim=4), flips_gptj, 1, 2),
    "bloom": (config("Bloom", vocab_size=VOCAB, hidden_size=36, n_layer=2, n_head=6, **NO_IDS), flips_bloom, 8, 8),
    "phi": (config("Phi", **WIDE, **rope(partial_rotary_factor=0.5)), flips_phi, 1, 1),
    "phi3": (config("Phi3", **GQA, sliding_window=8, **rope(partial_rotary_factor=0.5)), flips_phi3, 1, 1),
    "gpt_neox": (config("GPTNeoX", **WIDE, **rope(partial_rotary_factor=0.5)), flips_gpt_neox, 1, 2),
    "mistral": (config("Mistral", **GQA, head_dim=8, sliding_window=8), flips_mistral, 1, 1),
    "cohere": (config("Cohere", **GQA), flips_cohere, 100, 8),
    "gemma": (config("Gemma", **GQA, head_dim=12, rms_norm_eps=1e-5), flips_gemma, 25, 8),
    "gemma2": (config("Gemma2", **GEMMA2), flips_gemma2, 30, 0.2),
    "transnormer": (lambda: Open("transnormer").eval(), flips_transnormer, 1, 1),
    "polynorm": (lambda: Open("polynorm").eval(), flips_polynorm, 1, 1),
    "opt": (config("OPT", vocab_size=VOCAB, hidden_size=32, ffn_dim=48, num_hidden_layers=2,
                   num_attention_heads=4, max_position_embeddings=128, word_embed_proj_dim=32, dropout=0.0,
                   **NO_IDS), flips_opt, 8, 8),
    "gpt_neox_serial": (config("GPTNeoX", **WIDE, use_parallel_residual=False, **rope(partial_rotary_factor=0.5)),
                        flips_gpt_neox_serial, 1, 2),
}

# Rules for parameters by the end of their name, first match: (pattern, mean, deviation; "in": over the
# root of the fan-in). The residual stream stays small, so that norms feel eps; attention is far from uniform.
RULES = [
    (r"(wpe|embed_positions)\.weight", 0, 0.05, None),
    (r"word_embeddings_layernorm\.weight", 0.08, 0.024, None),
    (r"(word_embeddings_layernorm)\.bias", 0, 0.01, None),
    (r"(wte|word_embeddings|embed_tokens|embed_in|p\.embed)(\.weight)?", 0, 0.08, None),
    (r"(lm_head|embed_out|p\.head)(\.weight)?", 0, 2.0, "in"),
    (r"\.poly_bias", 0, 0.1, None),
    (r"\.poly", 0.33, 0.2, None),
    (r"(ln_.|ln1|ln2|norm)(\.weight)?", 1, 0.3, None),
    (r"(layernorm|layer_norm)\.weight", 1, 0.3, None),
    (r"(out_proj|o_proj|attn\.c_proj|dense|mlp\.c_proj|fc_out|fc2|4h_to_h|down_proj)\.bias", 0, 0.02, None),
    (r"\.bias", 0, 0.1, None),
    (r"(q_proj|k_proj)(\.weight)?", 0, 1.7, "in"),
    (r"(c_attn|query_key_value|qkv_proj)\.weight", 0, 1.7, "in"),
    (r"v_proj(\.weight)?", 0, 1.0, "in"),
    (r"(out_proj|o_proj|attn\.c_proj|attention\.dense|attn\.dense)(\.weight)?", 0, 0.06, "in"),
    (r"(mlp\.c_proj|fc_out|fc2|4h_to_h|down_proj)(\.weight)?", 0, 0.1, "in"),
    (r"(c_fc|fc_in|fc1|h_to_4h|gate_proj|gate_up_proj)(\.weight)?", 0, 2.0, "in"),
    (r"up_proj(\.weight)?", 0, 1.0, "in"),
]


BRANCH_ENDS = RULES[14:16]


def randomize(model, seed, last_gain, branch_gain):
    gen = torch.Generator().manual_seed(seed)
    convs = {id(m.weight) for m in model.modules() if type(m).__name__ == "Conv1D"}
    is_gemma = "Gemma" in type(model).__name__
    names = [name for name, _ in model.named_parameters()]
    has_end = any("post_feedforward" in name for name in names)
    for name, p in model.named_parameters():
        rule = next(r for r in RULES if re.search(r[0] + "$", name))
        _, mean, deviation, over = rule
        if over == "in":
            deviation /= math.sqrt(p.shape[0 if id(p) in convs else -1])
        p.data.copy_(mean + deviation * torch.randn(p.shape, generator=gen))
        if re.search(r"(wte|word_embeddings|embed_tokens|embed_in|embed)(\.weight)?$", name):
            p.data[::4] *= 0.05
            p.data /= math.sqrt(p.shape[1]) if is_gemma else 1
        if re.search(r"(transformer\.ln_f|model\.norm|decoder\.final_layer_norm)\.weight$", name):
            p.data *= last_gain
        if re.search(r"post_(attention|feedforward)_layernorm", name) if has_end else rule in BRANCH_ENDS:
            p.data *= branch_gain
        if is_gemma and "norm" in name:
            p.data -= 1


# --------------------------------------------------------------------------------------------


def acceptable(model, ids):
    tokens, margins = greedy(model, ids)
    if min(margins) < MARGIN or len(set(tokens)) < 8:
        return None
    return tokens, margins, entropy_ratio(model, ids)


def generate(name, number):
    make, flips_of, last, branch = CASES[name]

    def random_model(seed):
        model = make()
        randomize(model, seed, last, branch)
        return model

    write(find(name, number, random_model, acceptable, flips_of), os.path.join(OUT, name))


if __name__ == "__main__":
    main(__doc__, CASES, generate)
