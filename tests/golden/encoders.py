#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rows of tiny encoders and logits of tiny encoder-decoders, computed by Hugging Face transformers.

Each folder encoders/<name>/ holds model.safetensors, what describes the model
(config.json, or model.yaml where there is no preset), golden.json and *.npy; README.md describes
them. Every parameter is random. The script refuses to write a golden that could not tell
a wrong implementation.
"""
import json
import os
import shutil

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (BertConfig, BertForMaskedLM, BertModel, LongformerConfig,
                          LongformerModel, T5Config, T5ForConditionalGeneration)
from transformers.models.t5.modeling_t5 import T5Attention

from common import GATE, HERE, VOCAB, nmse, with_config

OUT = os.path.join(HERE, "encoders")
LENGTHS = (24, 9)

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
weights: .
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


def far(rows, right):
    """The measure over all rows, taken as one."""
    return nmse(*(a.astype(np.float64).reshape(1, -1) for a in (rows, right)))[0]


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
    flips = {k: far(rows_of(m, batch, picks[first]), results[first]) for k, m in flips.items()}
    zero = [(ids, [0] * len(ids)) for ids, _ in batch]
    flips["no_types"] = far(rows_of(model, zero, picks[first]), results[first])
    write(name, model, batch, results, flips)


def longformer(name, seed):
    config = LongformerConfig(**LONGFORMER)
    model = randomize(LongformerModel(config, add_pooling_layer=False).eval().float(), seed)
    batch = texts(seed + 1, 1)
    rows = rows_of(model, batch, lambda o: o.last_hidden_state)
    flips = {"window_6": with_config(model, attention_window=[6, 6])}
    flips = {k: far(rows_of(m, batch, lambda o: o.last_hidden_state), rows)
             for k, m in flips.items()}
    write(name, model, batch, {"rows": rows}, flips)


T5 = dict(vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=3, num_heads=4,
          relative_attention_num_buckets=16, relative_attention_max_distance=20,
          layer_norm_epsilon=1e-4, feed_forward_proj="relu", pad_token_id=0, eos_token_id=None,
          decoder_start_token_id=0)
GREEDY = 16


def randomize_t5(model, seed):
    """A small residual stream, so that eps is felt; scores and biases of distances are large."""
    gen = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=gen)
        if "layer_norm" in name:
            p.data.copy_(1 + 0.3 * noise)
        elif "relative_attention_bias" in name:
            p.data.copy_(1.5 * noise)
        elif "shared" in name:
            p.data.copy_(0.1 * noise)
        elif name.endswith((".q.weight", ".k.weight")):
            p.data.copy_(1.2 / p.shape[1] ** 0.5 * noise)
        elif name.endswith((".o.weight", ".wo.weight")):
            p.data.copy_(0.5 / p.shape[1] ** 0.5 * noise)
        else:
            p.data.copy_(1.0 / p.shape[1] ** 0.5 * noise)
    model.decoder.final_layer_norm.weight.data.mul_(40)
    return model


@torch.no_grad()
def t5_logits(model, ids, decoder_ids):
    return model(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([decoder_ids]),
                 use_cache=False).logits[0].numpy().astype(np.float32)


def t5(name, seed, **options):
    config = T5Config(**{**T5, **options})
    config._attn_implementation = "eager"
    model = randomize_t5(T5ForConditionalGeneration(config).eval().float(), seed)
    rng = np.random.default_rng(seed + 1)
    ids = [int(i) for i in rng.integers(1, VOCAB, 40)]
    decoder_ids = [0] + [int(i) for i in rng.integers(1, VOCAB, 29)]
    logits = t5_logits(model, ids, decoder_ids)
    greedy, margins = list(decoder_ids), []
    for _ in range(GREEDY):
        top = torch.topk(torch.from_numpy(t5_logits(model, ids, greedy)[-1]), 2)
        margins.append(float(top.values[0] - top.values[1]))
        greedy.append(int(top.indices[0]))
    assert min(margins) > 1e-3 and len(set(greedy[30:])) > 4, (name, min(margins), greedy[30:])
    gated = config.is_gated_act
    flips = {"eps_1e-06": dict(layer_norm_epsilon=1e-6),
             "max_distance_40": dict(relative_attention_max_distance=40),
             "act_other": dict(dense_act_fn="gelu" if gated else "silu")}
    flips = {k: far(t5_logits(with_config(model, **v), ids, decoder_ids), logits)
             for k, v in flips.items()}
    folder = os.path.join(OUT, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    model.save_pretrained(folder)
    np.save(os.path.join(folder, "logits.npy"), logits)
    with open(os.path.join(folder, "golden.json"), "w") as f:
        f.write("{" + ",\n ".join(f'"{k}": {json.dumps(v)}' for k, v in [
            ("ids", ",".join(map(str, ids))), ("decoder_ids", ",".join(map(str, decoder_ids))),
            ("greedy", greedy[30:]), ("flips", {k: {"nmse": v} for k, v in flips.items()})]) + "}\n")
    for key, value in flips.items():
        assert value >= 10 * GATE, (name, key, value)
    print(name, logits.shape, f"margin {min(margins):.2g}", {k: f"{v:.2g}" for k, v in flips.items()})


def buckets():
    """The bucket of each offset k - q from -512 to 512, as the library's f32 arithmetic has it."""
    lines = []
    for bidirectional in (True, False):
        for count, distance in ((32, 128), (16, 20), (8, 100), (64, 512), (128, 1000)):
            offsets = torch.arange(-512, 513)
            table = T5Attention._relative_position_bucket(offsets, bidirectional, count, distance)
            lines.append(f"{count} {distance} {int(bidirectional)} "
                         + " ".join(str(int(b)) for b in table))
    with open(os.path.join(OUT, "t5_buckets.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")


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
    t5("t5_relu", 33)
    t5("t5_gated", 24, feed_forward_proj="gated-gelu", d_kv=12, num_heads=2, num_decoder_layers=1,
       relative_attention_num_buckets=32, relative_attention_max_distance=128)
    buckets()


if __name__ == "__main__":
    main()
