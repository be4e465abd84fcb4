#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Scores the shipped model on the held-out text with transformers, and samples from it.

The rule: the text is tokenized once; tokens 1..n-1 are scored, each exactly once. Windows
are consecutive and do not overlap: window w scores the tokens 1+w*c .. min(n-1, (w+1)*c)
(c = max_position_embeddings) and is fed the tokens w*c .. min(n-2, (w+1)*c-1), that is its
previous token and all but the last of its own, at positions 0, 1, 2, ... Nothing older is
seen. The result is the sum of -ln p over the number of characters of the whole text.
"""
import argparse
import collections
import json
import os

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))


def split_text(text):
    """(train, validation, held-out); the cut points are in characters."""
    a, b = len(text) * 855 // 1000, len(text) * 9 // 10
    return text[:a], text[a:b], text[b:]


@torch.no_grad()
def nats(model, ids, context):
    """(sum of -ln p, number of tokens scored), in float32."""
    total, model = 0.0, model.eval()
    targets = len(ids) - 1
    full = targets // context
    batches = []
    if full:
        x = torch.tensor(ids[: full * context]).view(full, context)
        y = torch.tensor(ids[1 : full * context + 1]).view(full, context)
        batches += list(zip(x.split(16), y.split(16)))
    if targets % context:
        batches.append((torch.tensor([ids[full * context : -1]]),
                        torch.tensor([ids[full * context + 1 :]])))
    for x, y in batches:
        logits = model(input_ids=x, use_cache=False).logits.float()
        total += F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").double().item()
    return total, targets


@torch.no_grad()
def sample(model, ids, n, temperature, seed):
    """n more tokens; when the context is full, the newer half of it is fed again."""
    gen = torch.Generator().manual_seed(seed)
    context, ids = model.config.max_position_embeddings, list(ids)
    first, feed, cache, held = len(ids), list(ids), None, 0
    while len(ids) < first + n:
        if held + len(feed) > context:
            feed, cache, held = ids[-context // 2 :], None, 0
        out = model(input_ids=torch.tensor([feed]), past_key_values=cache, use_cache=True)
        cache, held = out.past_key_values, held + len(feed)
        p = torch.softmax(out.logits[0, -1].float() / temperature, -1)
        ids.append(int(torch.multinomial(p, 1, generator=gen)))
        feed = ids[-1:]
    return ids[first:]


def worst_repeat(ids, n=8):
    return max(collections.Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)).values())


def main():
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default=os.path.join(HERE, "..", "model"))
    p.add_argument("--text", default=os.path.join(HERE, "..", "tinyshakespeare.txt"))
    p.add_argument("--out", default=os.path.join(HERE, "score.json"))
    p.add_argument("--write-heldout", default="", help="also write the held-out text here")
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    text = split_text(open(args.text, encoding="utf-8").read())[2]
    if args.write_heldout:
        with open(args.write_heldout, "w", encoding="utf-8", newline="") as f:
            f.write(text)
    tok = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    model = LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    context = model.config.max_position_embeddings
    ids = tok.encode(text, add_special_tokens=False).ids
    total, count = nats(model, ids, context)
    repeats = []
    for seed in range(3):
        out = sample(model, tok.encode("ROMEO:\n").ids, 400, 0.8, seed)
        repeats.append(worst_repeat(out))
        if seed == 0:
            print(tok.decode(out))
    result = {
        "nats_per_char": total / len(text), "nats_per_token": total / count,
        "nats": total, "tokens": len(ids), "tokens_scored": count, "chars": len(text),
        "bytes": len(text.encode("utf-8")), "context": context,
        "worst_8gram_repeats_in_400_tokens": repeats,
        "method": "transformers, bf16 weights widened to float32, float32 compute; "
                  + " ".join(__doc__.split("The rule: ")[1].split()),
    }
    with open(args.out, "w") as f:
        json.dump(result, f, indent=2)
        f.write("\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
