#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rows of tiny encoders, computed by Hugging Face transformers.

Each folder encoders/<name>/ holds model.safetensors, what describes the model
(config.json, or model.yaml where there is no preset), golden.json and *.npy; README.md describes
them. Every parameter is random. The script refuses to write a golden that could not tell
a wrong implementation.
"""
import copy
import json
import os
import shutil

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (BertConfig, BertForMaskedLM, BertModel, LongformerConfig,
                          LongformerModel)

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "encoders")
GATE = 1e-9
LENGTHS = (24, 9)
VOCAB = 64

BERT = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=48, max_position_embeddings=40, type_vocab_size=3,
            layer_norm_eps=1e-5, hidden_act="gelu", pad_token_id=0)
# Odd windows do not exist; 8 is 4 keys to each side. Rows of positions begin behind the padding's.
LONGFORMER = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                  intermediate_size=48, max_position_embeddings=42, type_vocab_size=1,
                  layer_norm_eps=1e-5, hidden_act="gelu", pad_token_id=1, attention_window=[8, 8],
                  bos_token_id=0, eos_token_id=2)
LONGFORMER_YAML = """\
# A window of four keys to each side and no global tokens: LongformerModel with attention_window 8.
spec: 1
name: longformer-window
vocab_size: 64
hidden_size: 32
max_position_embeddings: 40
blocks:
  layer:
    - residual:
        - attention: {num_attention_heads: 4, qkv_bias: true, o_bias: true, mask: "abs(q - k) <= 4"}
    - layer_norm: {eps: 1e-5}
    - residual:
        - mlp: {intermediate_size: 48, act: gelu}
    - layer_norm: {eps: 1e-5}
encoder:
  - embedding: {}
  - position_embedding: {offset: 2}
  - token_type_embedding: {type_vocab_size: 1}
  - layer_norm: {eps: 1e-5}
  - repeat: {times: 2, block: layer, weights: "encoder.layer.{i}"}
weight_names:
  layer.attention.q: attention.self.query.weight
  layer.attention.k: attention.self.key.weight
  layer.attention.v: attention.self.value.weight
  layer.attention.o: attention.output.dense.weight
  layer.attention.q_bias: attention.self.query.bias
  layer.attention.k_bias: attention.self.key.bias
  layer.attention.v_bias: attention.self.value.bias
  layer.attention.o_bias: attention.output.dense.bias
  layer.layer_norm.gain: attention.output.LayerNorm.weight
  layer.layer_norm.bias: attention.output.LayerNorm.bias
  layer.mlp.up: intermediate.dense.weight
  layer.mlp.up_bias: intermediate.dense.bias
  layer.mlp.down: output.dense.weight
  layer.mlp.down_bias: output.dense.bias
  layer.layer_norm2.gain: output.LayerNorm.weight
  layer.layer_norm2.bias: output.LayerNorm.bias
  encoder.embedding.table: embeddings.word_embeddings.weight
  encoder.position_embedding.table: embeddings.position_embeddings.weight
  encoder.token_type_embedding.table: embeddings.token_type_embeddings.weight
  encoder.layer_norm.gain: embeddings.LayerNorm.weight
  encoder.layer_norm.bias: embeddings.LayerNorm.bias
"""


def randomize(model, seed):
    """Everything random; rows in front of a norm are small enough to feel eps, q and k large."""
    gen = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=gen)
        if "LayerNorm.weight" in name:
            p.data.copy_(0.2 * (1 + 0.3 * noise))
        elif "embeddings" in name and p.dim() == 2:
            p.data.copy_(0.1 * noise)
        elif p.dim() == 1:
            p.data.copy_(0.05 * noise)
        elif "query" in name or "key" in name:
            p.data.copy_(9.0 / p.shape[1] ** 0.5 * noise)
        elif "intermediate" in name or "transform" in name or "pooler" in name:
            p.data.copy_(6.0 / p.shape[1] ** 0.5 * noise)
        else:
            p.data.copy_(1.0 / p.shape[1] ** 0.5 * noise)
    return model


def texts(seed, types):
    rng = np.random.default_rng(seed)
    return [([int(i) for i in rng.integers(2, VOCAB, n)],
             [int(i) for i in rng.integers(0, types, n)]) for n in LENGTHS]


@torch.no_grad()
def rows_of(model, batch, pick):
    out = [pick(model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types])))[0]
           for ids, types in batch]
    return np.concatenate([o.reshape(-1, o.shape[-1]).numpy() for o in out]).astype(np.float32)


def nmse(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a - b) ** 2).sum() / (b**2).sum())


def with_config(model, **changes):
    config = copy.deepcopy(model.config)
    for key, value in changes.items():
        setattr(config, key, value)
    other = type(model)(config).eval()
    other.load_state_dict(model.state_dict(), strict=False)
    return other


def write(name, model, batch, results, flips):
    folder = os.path.join(OUT, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    if isinstance(model, LongformerModel):
        # The projections of global tokens are not part of this description.
        state = {k: v.contiguous() for k, v in model.state_dict().items() if "_global" not in k}
        save_file(state, os.path.join(folder, "model.safetensors"))
        with open(os.path.join(folder, "model.yaml"), "w") as f:
            f.write(LONGFORMER_YAML)
    else:
        model.save_pretrained(folder)
    for key, rows in results.items():
        np.save(os.path.join(folder, key + ".npy"), rows)
    with open(os.path.join(folder, "golden.json"), "w") as f:
        lines = [("ids", ";".join(",".join(map(str, i)) for i, _ in batch)),
                 ("types", ";".join(",".join(map(str, t)) for _, t in batch)),
                 ("flips", {k: {"nmse": v} for k, v in flips.items()})]
        f.write("{" + ",\n ".join(f'"{k}": {json.dumps(v)}' for k, v in lines) + "}\n")
    for key, value in flips.items():
        assert value >= 10 * GATE, (name, key, value)
    print(name, {k: v.shape for k, v in results.items()}, {k: f"{v:.2g}" for k, v in flips.items()})


def bert(name, kind, seed, picks, **options):
    config = BertConfig(**{**BERT, **options})
    config._attn_implementation = "eager"
    model = randomize(kind(config).eval().float(), seed)
    batch = texts(seed + 1, config.type_vocab_size)
    results = {key: rows_of(model, batch, pick) for key, pick in picks.items()}
    first = next(iter(picks))
    other_act = "gelu_new" if config.hidden_act == "gelu" else "gelu"
    flips = {"eps_1e-12": with_config(model, layer_norm_eps=1e-12),
             "act_" + other_act: with_config(model, hidden_act=other_act)}
    flips = {k: nmse(rows_of(m, batch, picks[first]), results[first]) for k, m in flips.items()}
    zero = [(ids, [0] * len(ids)) for ids, _ in batch]
    flips["no_types"] = nmse(rows_of(model, zero, picks[first]), results[first])
    write(name, model, batch, results, flips)


def longformer(name, seed):
    config = LongformerConfig(**LONGFORMER)
    model = randomize(LongformerModel(config, add_pooling_layer=False).eval().float(), seed)
    batch = texts(seed + 1, 1)
    rows = rows_of(model, batch, lambda o: o.last_hidden_state)
    flips = {"window_6": with_config(model, attention_window=[6, 6])}
    flips = {k: nmse(rows_of(m, batch, lambda o: o.last_hidden_state), rows)
             for k, m in flips.items()}
    write(name, model, batch, {"rows": rows}, flips)


def main():
    torch.manual_seed(0)
    mlm = {"rows": lambda o: o.logits}
    bert("bert_masked_lm", BertForMaskedLM, 11, mlm)
    bert("bert_other", BertForMaskedLM, 12, mlm, hidden_act="gelu_new",
         num_attention_heads=2, intermediate_size=50, num_hidden_layers=1)
    bert("bert_model", BertModel, 13,
         {"pooler": lambda o: o.pooler_output,
          "mean": lambda o: o.last_hidden_state.mean(1),
          "cls": lambda o: o.last_hidden_state[:, 0]})
    longformer("longformer", 14)


if __name__ == "__main__":
    main()
