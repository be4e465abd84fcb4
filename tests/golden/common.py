# SPDX-License-Identifier: Apache-2.0
"""What the scripts that compute goldens with transformers share: measures, mistakes, the search for a seed
and the folder that is written. No golden is written that could not tell a wrong implementation: each
mistake's logits must differ by at least ten times the gate.
"""
import argparse
import copy
import json
import os
import shutil
import sys
import types

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
GATE = 1e-9
PROMPT, STEPS, VOCAB, MARGIN = 24, 64, 64, 1e-3


def make_prompt(seed):
    """24 ids, at least 16 of them distinct, with repeats and small embedding rows among them."""
    rng = np.random.default_rng(seed)
    ids = [int(i) for i in rng.permutation(VOCAB)[:20]]
    ids += [ids[3], ids[0], ids[11], ids[3]]
    return ids


@torch.no_grad()
def logits_of(model, ids):
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().numpy()


@torch.no_grad()
def greedy(model, ids):
    ids, out, margins = list(ids), [], []
    for _ in range(STEPS):
        row = torch.from_numpy(logits_of(model, ids)[-1])
        top = torch.topk(row, 2)
        margins.append(float(top.values[0] - top.values[1]))
        out.append(int(top.indices[0]))
        ids.append(out[-1])
    return out, margins


@torch.no_grad()
def entropy_ratio(model, ids):
    """Mean over heads and rows of entropy / log(number of visible keys), rows 4 and up."""
    maps = model(input_ids=torch.tensor([ids]), output_attentions=True).attentions
    ratios = []
    for a in maps:
        h = -(a * torch.log(a.clamp_min(1e-30))).sum(-1)[0, :, 4:]
        ratios.append(h / torch.log(torch.arange(5, len(ids) + 1).float()))
    return float(torch.cat(ratios).mean())


def nmse(a, b):
    """(over all rows, worst row) of |a - b|^2 / |b|^2."""
    err, ref = ((a - b) ** 2).sum(-1), (b**2).sum(-1)
    return float(err.sum() / ref.sum()), float((err / ref).max())


# --- models with a mistake -----------------------------------------------------------------


def with_config(model, **changes):
    config = copy.deepcopy(model.config)
    for key, value in changes.items():
        setattr(config, key, value)
    config._attn_implementation = "eager"
    other = type(model)(config).eval()
    other.load_state_dict(model.state_dict(), strict=False)
    return other


def with_patch(model, function, replacement):
    """logits_of with one function of the model's source module replaced."""
    module = sys.modules[type(model).__module__]

    def run(ids):
        kept = getattr(module, function)
        setattr(module, function, replacement)
        try:
            return logits_of(model, ids)
        finally:
            setattr(module, function, kept)

    return run


def edited(model, edit):
    other = copy.deepcopy(model)
    edit(other)
    return other


def zero_bias(model, pick):
    for name, p in model.named_parameters():
        if name.endswith(pick + ".bias"):
            p.data.zero_()


# -------------------------------------------------------------------------------------------


def find(name, number, make, acceptable, flips_of):
    """The first model of |make|'s seeds whose run is acceptable and which tells every mistake."""
    for seed in range(1000 * number, 1000 * number + 1000):
        torch.manual_seed(seed)
        model, ids = make(seed), make_prompt(seed)
        found = acceptable(model, ids)
        if found is None:
            continue
        right = logits_of(model, ids)
        flips = {flip: nmse(run(ids), right) for flip, run in flips_of(model).items()}
        weak = {k: v for k, v in flips.items() if not min(v) >= 10 * GATE}
        if not weak:
            tokens, margins, ratio = found
            return types.SimpleNamespace(name=name, model=model, seed=seed, ids=ids, tokens=tokens,
                                         margins=margins, ratio=ratio, right=right, flips=flips)
        print(f"{name}: seed {seed} cannot tell {weak}", file=sys.stderr)
    raise SystemExit(f"{name}: no seed serves")


def write(g, folder):
    """What |find| found: a Hugging Face directory with golden.json and logits.npy beside it."""
    assert len(g.ids) == PROMPT and len(set(g.ids)) >= 16 and len(g.tokens) == STEPS
    noise = nmse(g.right, logits_of(copy.deepcopy(g.model).double(), g.ids))[1]
    assert noise < GATE / 10, f"float32 itself is too noisy here: {noise}"
    shutil.rmtree(folder, ignore_errors=True)
    g.model.save_pretrained(folder)
    np.save(os.path.join(folder, "logits.npy"), g.right.astype(np.float32))
    os.chmod(os.path.join(folder, "model.safetensors"), 0o644)
    golden = {
        "class": type(g.model).__name__, "seed": g.seed, "gate_nmse": GATE, "ids": g.ids,
        "greedy": g.tokens, "margins": [float(f"{m:.4g}") for m in g.margins],
        "attention_entropy_ratio": round(g.ratio, 4),
        "float32_noise_worst_row": float(f"{noise:.2g}"),
    }
    with open(os.path.join(folder, "golden.json"), "w") as f:
        f.write("{\n" + "".join(f' "{k}": {json.dumps(v)},\n' for k, v in golden.items()))
        rows = [f'  "{k}": {{"nmse": {a:.3g}, "worst_row": {w:.3g}}}' for k, (a, w) in g.flips.items()]
        f.write(' "flips": {\n' + ",\n".join(rows) + "\n }\n}\n")
    weakest = min(g.flips.items(), key=lambda kv: kv[1][0])
    print(f"{g.name}: seed {g.seed} entropy {g.ratio:.2f} min margin {min(g.margins):.4f} distinct "
          f"{len(set(g.tokens))} flips {len(g.flips)}, weakest {weakest[0]} {weakest[1][0]:.1e}",
          flush=True)


def main(doc, cases, generate):
    """generate(name, number from 1) for each case, or for the one that is asked for."""
    p = argparse.ArgumentParser(description=doc.splitlines()[0])
    p.add_argument("--only", default="", help="one case")
    args = p.parse_args()
    torch.set_num_threads(1)
    for number, name in enumerate(cases):
        if args.only in ("", name):
            generate(name, number + 1)
