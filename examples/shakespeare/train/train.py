#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the model of this example from scratch: a byte-level BPE and a small llama.

Writes the Hugging Face directory (../model), loss.csv and loss.svg. It does not
compute the figure that the README quotes: score.py does, from the stored weights.

The text is cut in three by characters: train [0, 0.855), validation [0.855, 0.9),
held-out [0.9, 1]. The tokenizer sees the first part only, the checkpoint is chosen
on the second, and the third decides nothing: its loss is only reported.
"""
import argparse
import csv
import json
import math
import os
import random
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from score import nats, split_text

HERE = os.path.dirname(os.path.abspath(__file__))


def parse_args():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--text", default=os.path.join(HERE, "..", "tinyshakespeare.txt"))
    p.add_argument("--out", default=os.path.join(HERE, "..", "model"))
    p.add_argument("--log-dir", default=HERE)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--vocab", type=int, default=1024)
    p.add_argument("--hidden", type=int, default=256)
    p.add_argument("--intermediate", type=int, default=640)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--heads", type=int, default=8)
    p.add_argument("--kv-heads", type=int, default=4)
    p.add_argument("--context", type=int, default=256, help="tokens; max_position_embeddings")
    p.add_argument("--short-context", type=int, default=256,
                   help="tokens; window length in the first part of the run")
    p.add_argument("--short-part", type=float, default=0.7, help="length of that part, 0 to 1")
    p.add_argument("--batch", type=int, default=2048, help="tokens a step")
    p.add_argument("--init", default="", help="start from this model directory and its tokenizer")
    p.add_argument("--steps", type=int, default=8000)
    p.add_argument("--minutes", type=float, default=0,
                   help="if > 0: also a limit on the wall clock; the schedule then ends with it")
    p.add_argument("--warmup", type=float, default=0.02, help="fraction of the run")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--dropout", type=float, default=0.15)
    p.add_argument("--bpe-dropout", type=float, default=0.1,
                   help="chance to skip a merge in the noisy segmentations")
    p.add_argument("--ema", type=float, default=0.998, help="decay of the averaged weights")
    p.add_argument("--eval-every", type=int, default=200, help="steps")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--no-compile", dest="compile", action="store_false")
    return p.parse_args()


def train_tokenizer(text, vocab_size):
    """Byte-level BPE as in GPT-2; every byte has a token, so no text is unknown."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(
        [text],
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tok


def build_model(args):
    config = LlamaConfig(
        vocab_size=args.vocab,
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        head_dim=args.hidden // args.heads,
        max_position_embeddings=args.context,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(args.seed)
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config)
    depth_scale = 1.0 / math.sqrt(2 * args.layers)

    def drop(module, _inputs, output):
        return F.dropout(output, args.dropout, module.training)

    # Llama has no dropout on the residual stream; hooks add it for training only.
    model.model.embed_tokens.register_forward_hook(drop)
    for layer in model.model.layers:
        for out in (layer.self_attn.o_proj, layer.mlp.down_proj):
            out.weight.data.mul_(depth_scale)
            out.register_forward_hook(drop)
    return model


def lr_factor(progress, warmup):
    if progress < warmup:
        return progress / warmup
    x = min(1.0, (progress - warmup) / (1.0 - warmup))
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * x))


def segment(word, ranks, rng, skip):
    """BPE merges of one pre-token, each candidate merge skipped with probability `skip`."""
    parts = list(word)
    while True:
        found = [(ranks[p], i) for i, p in enumerate(zip(parts, parts[1:]))
                 if p in ranks and rng.random() >= skip]
        if not found:
            return parts
        i = min(found)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


class TokenStream:
    """Random windows of the training text under BPE dropout (Provilkov et al. 2020).

    Half of the words keep their exact tokens; the others take one of four noisy
    segmentations. The text is segmented anew after every two passes over it.
    """

    def __init__(self, tok, text, args):
        self.args = args
        self.gen = torch.Generator().manual_seed(args.seed + 1)
        rng = random.Random(args.seed)
        spec = json.loads(tok.to_str())["model"]
        ranks = {tuple(m): i for i, m in enumerate(spec["merges"])}
        words = [w for w, _ in tok.pre_tokenizer.pre_tokenize_str(text)]
        kinds = sorted(set(words))
        index = {w: i for i, w in enumerate(kinds)}
        self.words = [index[w] for w in words]
        self.forms = []
        for w in kinds:
            exact = segment(w, ranks, rng, 0.0)
            noisy = [segment(w, ranks, rng, args.bpe_dropout) for _ in range(4)]
            self.forms.append([[spec["vocab"][t] for t in f] for f in noisy + [exact] * 4])
        self.chars, self.ids, self.left = len(text), None, 0

    def refresh(self):
        pick = torch.randint(8, (len(self.words),), generator=self.gen).tolist()
        forms = self.forms
        self.ids = torch.tensor([t for w, k in zip(self.words, pick) for t in forms[w][k]])
        self.left = 2 * len(self.ids)

    def batch(self, ctx):
        n = self.args.batch // ctx
        if self.left <= 0:
            self.refresh()
        self.left -= ctx * n
        at = torch.randint(len(self.ids) - ctx - 1, (n,), generator=self.gen)
        rows = torch.stack([self.ids[i : i + ctx + 1] for i in at.tolist()])
        return rows[:, :-1], rows[:, 1:]


def write_svg(path, rows):
    """The loss curve as a plain picture: nats per character over steps."""
    w, h, x0, y0 = 640, 320, 50, 20
    steps = max(r["step"] for r in rows) or 1
    lo, hi = 1.2, 3.2

    def point(r, key):
        y = min(hi, max(lo, r[key]))
        return f"{x0 + (w - x0 - 10) * r['step'] / steps:.1f},{y0 + (h - 50) * (hi - y) / (hi - lo):.1f}"

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" '
           'font-family="sans-serif" font-size="11">']
    for tick in (1.2, 1.6, 2.0, 2.4, 2.8, 3.2):
        y = y0 + (h - 50) * (hi - tick) / (hi - lo)
        out.append(f'<line x1="{x0}" x2="{w - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
                   f'<text x="8" y="{y + 4:.1f}">{tick:.1f}</text>')
    for i, (key, colour) in enumerate((("train", "#888"), ("validation", "#07c"), ("heldout", "#c50"))):
        pts = " ".join(point(r, key) for r in rows)
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{pts}"/>'
                   f'<text x="{w - 120}" y="{40 + 16 * i}" fill="{colour}">{key}</text>')
    out.append(f'<text x="{x0}" y="{h - 8}">nats per character; {steps} steps</text></svg>')
    with open(path, "w") as f:
        f.write("\n".join(out) + "\n")


def save(model, tok, out):
    model = model.to(torch.bfloat16)
    model.save_pretrained(out)
    tok.save(os.path.join(out, "tokenizer.json"))
    with open(os.path.join(out, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length":
                   model.config.max_position_embeddings, "eos_token": "<|endoftext|>",
                   "bos_token": "<|endoftext|>", "clean_up_tokenization_spaces": False}, f, indent=2)
        f.write("\n")


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    os.makedirs(args.out, exist_ok=True)
    train_text, valid_text, held_text = split_text(open(args.text, encoding="utf-8").read())
    tok = (Tokenizer.from_file(os.path.join(args.init, "tokenizer.json")) if args.init
           else train_tokenizer(train_text, args.vocab))
    valid_ids, held_ids = tok.encode(valid_text).ids, tok.encode(held_text).ids
    model = build_model(args)
    if args.init:
        start_from = LlamaForCausalLM.from_pretrained(args.init, dtype=torch.float32)
        model.load_state_dict(start_from.state_dict())
    ema = LlamaForCausalLM(model.config)
    ema.load_state_dict(model.state_dict())
    ema.eval()
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)

    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": args.weight_decay},
                             {"params": plain, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.98))
    fast = torch.compile(model, dynamic=False) if args.compile else model
    stream = TokenStream(tok, train_text, args)
    rows, best, best_state = [], math.inf, None
    context = args.short_context
    start, seen, seen_n, step = time.time(), 0.0, 0, 0
    while True:
        progress = step / args.steps
        if args.minutes > 0:
            progress = max(progress, (time.time() - start) / (60 * args.minutes))
        last = progress >= 1.0
        if context < args.context and progress >= args.short_part:
            context, best = args.context, math.inf
        if last or (step % args.eval_every == 0 and (step > 0 or not args.init)):
            v = nats(ema, valid_ids, context)[0] / len(valid_text)
            t = nats(ema, held_ids, context)[0] / len(held_text)
            rows.append({"step": step, "context": context, "train": seen / seen_n * len(stream.ids) / stream.chars if seen_n
                         else v, "validation": v, "heldout": t})
            print(f"{step} {time.time() - start:.0f}s lr {opt.param_groups[0]['lr']:.2e} train "
                  f"{rows[-1]['train']:.4f} valid {v:.4f} heldout {t:.4f}", flush=True)
            seen, seen_n = 0.0, 0
            if v < best:
                best = v
                best_state = {k: x.clone() for k, x in ema.state_dict().items()}
        if last:
            break
        for group in opt.param_groups:
            group["lr"] = args.lr * lr_factor(progress, args.warmup)
        x, y = stream.batch(context)
        model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = fast(input_ids=x, use_cache=False).logits
        loss = F.cross_entropy(logits.float().view(-1, args.vocab), y.reshape(-1))
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        seen, seen_n, step = seen + loss.item(), seen_n + 1, step + 1
        rate = min(args.ema, step / (step + 10.0))
        with torch.no_grad():
            for a, b in zip(ema.parameters(), model.parameters()):
                a.lerp_(b, 1.0 - rate)

    with open(os.path.join(args.log_dir, "loss.csv"), "w", newline="") as f:
        out = csv.DictWriter(f, ["step", "context", "train", "validation", "heldout"], lineterminator="\n")
        out.writeheader()
        for r in rows:
            out.writerow({k: x if k in ("step", "context") else f"{x:.4f}" for k, x in r.items()})
    write_svg(os.path.join(args.log_dir, "loss.svg"), rows)
    ema.load_state_dict(best_state)
    save(ema, tok, args.out)


if __name__ == "__main__":
    main()
