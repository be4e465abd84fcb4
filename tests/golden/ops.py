# SPDX-License-Identifier: Apache-2.0
"""Writes ops/cases.txt: every op and scalar function of the IR with values computed by PyTorch in float64.

Nothing here shares code with the evaluator. The C test (tests/unit/test_eval.c) parses each function,
evaluates it in ideal mode and compares; it fails if an op has no case.
"""
import math
import pathlib
import re
import sys

import torch
import torch.nn.functional as F
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gptj.modeling_gptj import rotate_every_two
from transformers.models.llama.modeling_llama import rotate_half

torch.set_default_dtype(torch.float64)
torch.manual_seed(7)
HEAD = "module @case { dim S in 1..8 dim N in 1..64 dim R in 1..64 dim K in 1..256 dim M in 1..256\n"


def numbers(t):
    return " ".join(repr(float(x)) for x in t.to(torch.float64).flatten().tolist())


def shape(t):
    return ",".join(str(d) for d in t.shape) if t.dim() else "scalar"


def case(name, kir, ins, outs, tol=1e-13, syms=(1, 1, 1, 1, 1)):
    """ins: tensors, or ("kv", sequences, capacity)."""
    print(f"case {name}")
    print("tol", repr(tol))
    print("syms", *syms)
    for t in ins:
        if isinstance(t, tuple):
            print("kv", *t[1:])
        else:
            print("in", shape(t), numbers(t))
    for t in outs:
        print("out", shape(t), numbers(t))
    print("kir")
    print(HEAD + kir.strip() + "\n}")
    print("end\n")


# ---- scalar functions ------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan
GRID = torch.tensor([-30.0, -4.5, -2.0, -1.0, -0.3, -1e-3, 0.0, 1e-5, 0.25, 0.5, 1.0, 1.7, 3.0, 8.25, 40.0])
POSITIVE = GRID.abs() + 0.125
A = torch.randn(16) * 3
B = torch.randn(16) * 2 + 0.1
B[3] = A[3]
B[7] = A[7]

# Where a function is not defined everywhere, the grid is cut. Each says what becomes of NaN and infinities.
GRIDS = {"recip": POSITIVE, "log": POSITIVE, "sqrt": POSITIVE, "rsqrt": POSITIVE}
NO_NUMBERS = torch.tensor([NAN, INF, -INF])
PREDICATES = torch.tensor([0, 0, 1, 1]).bool(), torch.tensor([0, 1, 0, 1]).bool()


def rows_of_fn_def():
    """(name, arity, result, oracle) of each row of ir/fn.def."""
    text = (pathlib.Path(__file__).parents[2] / "ir" / "fn.def").read_text()
    for line in re.findall(r"^FN\((.*)\)$", text, re.M):
        columns, depth, quoted = [""], 0, False
        for ch in line:
            quoted ^= ch == '"'
            depth += (ch == "(") - (ch == ")") if not quoted else 0
            if ch == "," and depth == 0 and not quoted:
                columns.append("")
            else:
                columns[-1] += ch
        name, arity, result, _, _, _, oracle, _ = (c.strip() for c in columns)
        yield name, int(arity), result, oracle


def operands_of(name, arity, result):
    if name in ("and", "or"):
        return PREDICATES
    if name == "not":
        return PREDICATES[:1]
    if name == "pow":
        return POSITIVE, GRID / 8
    if name == "select":
        return torch.tensor([[1], [0], [1], [0]]).bool(), torch.randn(4, 3), torch.randn(3)
    if arity == 1:
        return (torch.cat([GRIDS.get(name, GRID), NO_NUMBERS]),)
    return (torch.cat([A, torch.tensor([NAN, 1.0, INF, -INF])]),
            torch.cat([B, torch.tensor([2.0, NAN, 1.0, 1.0])]))


def kir_type(t):
    return f"{'pred' if t.dtype == torch.bool else 'f32'}[{','.join(map(str, t.shape))}]"


def scalar_functions():
    for name, arity, result, oracle in rows_of_fn_def():
        ins = operands_of(name, arity, result)
        out = eval(oracle, {"torch": torch, "F": F}, dict(zip("abc", ins)))
        args = ", ".join(f"%{v}: {kir_type(t)}" for v, t in zip("abc", ins))
        uses = ", ".join(f"%{v}" for v in "abc"[:arity])
        case(name, f"func @f({args}) -> ({kir_type(out)}) {{ %0 = {name} {uses} : {kir_type(out)} return %0 }}",
             ins, [out])
    x, y, z = torch.randn(2, 1, 3, 1), torch.randn(4, 1, 5), torch.randn(())
    case("broadcast", "func @f(%a: f32[2,1,3,1], %b: f32[4,1,5], %c: f32[]) -> (f32[2,4,3,5]) { "
                      "%0 = mul %a, %b : f32[2,4,3,5] %1 = sub %0, %c : f32[2,4,3,5] return %1 }",
         [x, y, z], [x * y - z])


# ---- index functions -------------------------------------------------------------------------------

def index_functions():
    x = torch.randn(2, 3, 4)
    case("const", "func @f() -> (f32[]) { %0 = const {value = -0.1} : f32[] return %0 }", [],
         [torch.tensor(-0.1)])
    case("iota", "func @f() -> (i32[1,5,1]) { %0 = iota {axis = 1} : i32[1,5,1] return %0 }", [],
         [torch.arange(5).reshape(1, 5, 1)])
    case("reshape", "func @f(%x: f32[2,3,4]) -> (f32[6,2,2]) { %0 = reshape %x : f32[6,2,2] return %0 }",
         [x], [x.reshape(6, 2, 2)])
    row = torch.arange(6.0).reshape(1, 3, 1, 2) - 2.5
    case("expand", "func @f(%x: f32[1,3,1,2]) -> (f32[2,4,3,5,2]) "
                   "{ %0 = expand %x : f32[2,4,3,5,2] return %0 }", [row], [row.expand(2, 4, 3, 5, 2)])
    case("transpose", "func @f(%x: f32[2,3,4]) -> (f32[4,2,3]) "
                      "{ %0 = transpose %x {perm = [2, 0, 1]} : f32[4,2,3] return %0 }",
         [x], [x.permute(2, 0, 1)])
    case("slice", "func @f(%x: f32[2,3,4]) -> (f32[2,2,4]) "
                  "{ %0 = slice %x {axis = 1, start = 1, stop = 3} : f32[2,2,4] return %0 }",
         [x], [x[:, 1:3]])
    y = torch.randn(2, 1, 4)
    case("concat", "func @f(%x: f32[2,3,4], %y: f32[2,1,4]) -> (f32[2,7,4]) "
                   "{ %0 = concat %x, %y, %x {axis = 1} : f32[2,7,4] return %0 }",
         [x, y], [torch.cat([x, y, x], dim=1)])
    case("convert", "func @f(%x: f32[2,3,4]) -> (i32[2,3,4], f32[2,3,4]) "
                    "{ %0 = convert %x : i32[2,3,4] %1 = convert %0 : f32[2,3,4] return %0, %1 }",
         [x * 5], [torch.trunc(x * 5), torch.trunc(x * 5)])
    table, ids = torch.randn(7, 3), torch.tensor([6, 0, 3, 3])
    case("gather", "func @f(%t: bf16[7,3], %i: i32[4]) -> (f32[4,3]) { %0 = gather %t, %i : f32[4,3] return %0 }",
         [table, ids], [table[ids]])
    pairs = (torch.arange(6).reshape(2, 3) * 5) % 7
    case("gather", "func @f(%t: bf16[7,3], %i: i32[2,3]) -> (f32[2,3,3]) { %0 = gather %t, %i : f32[2,3,3] return %0 }",
         [table, pairs], [table[pairs]])


# ---- contractions and reductions -------------------------------------------------------------------

def reductions():
    a, b = torch.randn(5, 19), torch.randn(19, 11)
    case("matmul", "func @f(%a: f32[5,19], %b: f32[19,11]) -> (f32[5,11]) "
                   "{ %0 = matmul %a, %b : f32[5,11] return %0 }", [a, b], [a @ b])
    for rows in (2, 5):
        case(f"matmul_trans_{rows}", f"func @f(%a: f32[{rows},19], %b: f32[11,19]) -> (f32[{rows},11]) "
             f"{{ %0 = matmul %a, %b {{trans_b}} : f32[{rows},11] return %0 }}",
             [a[:rows], b.T.contiguous()], [a[:rows] @ b])
    a, b = torch.randn(3, 1, 4, 6), torch.randn(2, 6, 9)
    case("matmul_batch", "func @f(%a: f32[3,1,4,6], %b: f32[2,6,9]) -> (f32[3,2,4,9]) "
                         "{ %0 = matmul %a, %b : f32[3,2,4,9] return %0 }", [a, b], [a @ b])
    x, g, bias = torch.randn(4, 70), torch.randn(70), torch.randn(70)
    case("rms_norm", "func @f(%x: f32[4,70]) -> (f32[4,70]) { %0 = row_reduce %x {acc = [sum_sq], keep} "
         "map(v, ss) { mul(v, rsqrt(add(div(ss, 70), 0.001))) } : f32[4,70] return %0 }",
         [x], [F.rms_norm(x, (70,), eps=1e-3)])
    case("layer_norm", "func @f(%x: f32[4,70], %g: f32[70], %b: f32[70]) -> (f32[4,70]) { "
         "%0 = row_reduce %x, %g, %b {acc = [sum, sum_dev], keep} map(v, s, d, c | 2) { add(mul(mul(sub(v, "
         "div(s, 70)), rsqrt(add(div(d, 70), 0.01))), $0[c]), $1[c]) } : f32[4,70] return %0 }",
         [x, g, bias], [F.layer_norm(x, (70,), g, bias, eps=1e-2)])
    y = x.clone()
    y[1, 3:] = -INF
    case("softmax", "func @f(%x: f32[4,70]) -> (f32[4,70]) { %0 = row_reduce %x {acc = [max, sum_exp], keep} "
         "map(v, m, s) { div(exp(sub(v, m)), s) } : f32[4,70] return %0 }", [y], [torch.softmax(y, dim=-1)])
    case("log_sum_exp", "func @f(%x: f32[4,70]) -> (f32[4,1]) { %0 = row_reduce %x {acc = [max, sum_exp]} "
         "map(v, m, s) { add(m, log(s)) } : f32[4,1] return %0 }", [y], [torch.logsumexp(y, -1, keepdim=True)])
    case("range", "func @f(%x: f32[4,70]) -> (f32[4,1]) { %0 = row_reduce %x {acc = [max, min]} "
         "map(v, a, b) { sub(a, b) } : f32[4,1] return %0 }", [x], [(x.amax(-1) - x.amin(-1))[:, None]])
    case("row_sum", "func @f(%x: f32[4,70]) -> (f32[4,1]) { %0 = row_reduce %x {acc = [sum]} : f32[4,1] return %0 }",
         [x], [x.sum(-1, keepdim=True)])
    z = x.clone()
    z[:, 66] = z.amax(-1)  # with several largest elements
    z[2], z[3, :40] = -INF, -INF
    tops = [(z > -INF) & (z == z.amax(-1, keepdim=True))]
    tops += [(p > -INF) & (p == p.amax(-1, keepdim=True)) for p in z.split(32, dim=1)]
    assert (tops[0].sum(-1) > 1).sum() >= 2
    columns = [torch.arange(70.0), *torch.arange(70.0).split(32)]
    first = [torch.where(t, c, INF).amin(-1, keepdim=True) for t, c in zip(tops, columns)]
    case("argmax", "func @f(%x: f32[4,70]) -> (f32[4,1]) { %0 = row_reduce %x {acc = [max, argmax]} : f32[4,1] "
         "return %0 }", [z], first[:1])
    case("row_stat_argmax", "func @f(%x: f32[4,70]) -> (f32[4,3]) "
         "{ %0 = row_stat %x {acc = [max, argmax], block = 32} : f32[4,3] return %0 }",
         [z], [torch.cat(first[1:], dim=1)])
    parts = torch.stack([(p ** 2).sum(-1) for p in x.split(32, dim=1)], dim=1)
    case("row_stat", "func @f(%x: f32[4,70]) -> (f32[4,3]) "
         "{ %0 = row_stat %x {acc = [sum_sq], block = 32} : f32[4,3] return %0 }", [x], [parts])
    parts = torch.stack([((p - p.mean(-1, keepdim=True)) ** 2).sum(-1) for p in x.split(32, dim=1)], dim=1)
    case("row_stat_dev", "func @f(%x: f32[4,70]) -> (f32[4,3]) "
         "{ %0 = row_stat %x {acc = [sum, sum_dev], block = 32} : f32[4,3] return %0 }", [x], [parts])


# ---- rope, cache, attention ------------------------------------------------------------------------

def rope_tables():
    common = dict(hidden_size=64, num_attention_heads=2, max_position_embeddings=8192)
    kinds = {
        "default": ({"rope_type": "default", "rope_theta": 10000.0}, ""),
        "linear": ({"rope_type": "linear", "factor": 2.5, "rope_theta": 5000.0},
                   ", theta = 5000, scaling = linear, factor = 2.5"),
        "llama3": ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 512, "rope_theta": 500000.0},
                   ", theta = 500000, scaling = llama3, factor = 8, high = 4, original = 512"),
    }
    pos = torch.tensor([0, 1, 7, 100, 801])
    for name, (parameters, attrs) in kinds.items():
        config = LlamaConfig(rope_parameters=parameters, **common)
        if name == "default":
            freq = 1.0 / (10000.0 ** (torch.arange(0, 32, 2).to(torch.float32) / 32))
        else:
            freq, _ = ROPE_INIT_FUNCTIONS[name](config, "cpu")
        assert freq.dtype == torch.float32 and freq.numel() == 16
        angle = pos.to(torch.float32)[:, None] * freq[None, :]
        table = torch.stack([angle.cos(), angle.sin()], dim=-1)
        # PyTorch's float32 pow and cos are good to an ulp; the angle's ulp grows with the position.
        case(f"rope_table_{name}", f"func @f(%p: i32[5]) -> (f32[5,16,2]) "
             f"{{ %0 = rope_table %p {{dim = 32{attrs}}} : f32[5,16,2] return %0 }}",
             [pos], [table.double()], tol=1e-4)
        small = table[:3]
        case(f"rope_table_{name}_near", f"func @f(%p: i32[3]) -> (f32[3,16,2]) "
             f"{{ %0 = rope_table %p {{dim = 32{attrs}}} : f32[3,16,2] return %0 }}",
             [pos[:3]], [small.double()], tol=1e-6)


def rope():
    x, angle = torch.randn(3, 2, 10), torch.randn(3, 4)
    table = torch.stack([angle.cos(), angle.sin()], dim=-1)
    part, rest = x[..., :8], x[..., 8:]
    cos, sin = (torch.cat([f(angle)] * 2, dim=-1)[:, None] for f in (torch.cos, torch.sin))
    half = torch.cat([part * cos + rotate_half(part) * sin, rest], dim=-1)
    cos, sin = (torch.repeat_interleave(f(angle), 2, dim=-1)[:, None] for f in (torch.cos, torch.sin))
    turned = rotate_every_two(part[None])[0]
    inter = torch.cat([part * cos + turned * sin, rest], dim=-1)
    for style, want in (("half", half), ("interleaved", inter)):
        attr = "" if style == "half" else " {style = interleaved}"
        case(f"rope_{style}", f"func @f(%x: f32[3,2,10], %t: f32[3,4,2]) -> (f32[3,2,10]) "
             f"{{ %0 = rope %x, %t{attr} : f32[3,2,10] return %0 }}", [x, table], [want])


def attention():
    """Three sequences: one fresh, one continued, one decoding a token; two kv heads, four heads."""
    past, new, heads, groups, size = [0, 5, 9], [4, 3, 1], 4, 2, 6
    n, n_past, keys = sum(new), sum(past), sum(past) + sum(new)
    q = torch.randn(n, heads, size)
    k = [torch.randn(p + m, groups, size) for p, m in zip(past, new)]
    v = [torch.randn(p + m, groups, size) for p, m in zip(past, new)]
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625])
    pos = torch.cat([torch.arange(p, p + m) for p, m in zip(past, new)])
    seq = torch.cat([torch.full((m,), s) for s, m in enumerate(new)])
    old_pos = torch.cat([torch.arange(p) for p in past])
    old_seq = torch.cat([torch.full((p,), s) for s, p in enumerate(past)])
    start = torch.tensor([sum(new[:s]) for s in range(3)])
    rows = dict(
        old_k=torch.cat([t[:p] for t, p in zip(k, past)]), old_v=torch.cat([t[:p] for t, p in zip(v, past)]),
        new_k=torch.cat([t[p:] for t, p in zip(k, past)]), new_v=torch.cat([t[p:] for t, p in zip(v, past)]))

    def reference(visible, score=lambda s, h, qp, kp: s):
        out, row = torch.zeros(n, heads, size), 0
        for s, (p, m) in enumerate(zip(past, new)):
            qp, kp = torch.arange(p, p + m)[:, None], torch.arange(p + m)[None, :]
            for h in range(heads):
                g = h // (heads // groups)
                w = score(q[row:row + m, h] @ k[s][:, g].T * 0.4, h, qp, kp)
                w = w.masked_fill(~visible(qp, kp), -INF)
                out[row:row + m, h] = torch.nan_to_num(torch.softmax(w, -1)) @ v[s][:, g]
            row += m
        return out

    variants = {
        "attention": ("mask(h, q, k) { le(k, q) }", "", "", reference(lambda qp, kp: kp <= qp)),
        "attention_window": ("mask(h, q, k) { and(le(k, q), lt(sub(q, k), 3)) }", "", "",
                             reference(lambda qp, kp: (kp <= qp) & (qp - kp < 3))),
        # Rows of even positions see nothing: they give 0.
        "attention_nothing": ("mask(h, q, k) { and(le(k, q), ne(mul(2, floor(div(q, 2))), q)) }", "", "",
                              reference(lambda qp, kp: (kp <= qp) & (qp % 2 != 0))),
        "attention_alibi_cap": (
            "score(s, h, q, k | 1) { mul(3, tanh(div(add(s, mul($0[h], sub(k, q))), 3))) } mask(h, q, k) { le(k, q) }",
            ", %slopes: f32[4]", ", %slopes",
            reference(lambda qp, kp: kp <= qp,
                      lambda s, h, qp, kp: 3 * torch.tanh((s + slopes[h] * (kp - qp)) / 3))),
    }
    kv = f"kvcache<page 4, {groups} x {size}, f32>"
    for name, (slots, arg, operand, want) in variants.items():
        kir = f"""
func @f(%q: f32[N,{heads},{size}], %kv: {kv}, %k0: f32[{n_past},{groups},{size}], %v0: f32[{n_past},{groups},{size}],
        %k1: f32[N,{groups},{size}], %v1: f32[N,{groups},{size}], %p0: i32[{n_past}], %s0: i32[{n_past}],
        %p1: i32[N], %s1: i32[N], %start: i32[S], %past: i32[S], %pages: i32[S,8]{arg})
        -> (f32[N,{heads},{size}], f32[K,{groups},{size}], f32[K,{groups},{size}], i32[K], i32[K]) {{
  %0 = kv_append %kv, %k0, %v0, %p0, %s0, %pages : {kv}
  %1 = kv_append %0, %k1, %v1, %p1, %s1, %pages : {kv}
  %2 = attention %q, %1, %p1, %s1, %start, %past, %pages{operand} {{scale = 0.4}} {slots} : f32[N,{heads},{size}]
  %3 = kv_read %1, %start, %past, %pages : f32[K,{groups},{size}]
  %4 = kv_read %1, %start, %past, %pages {{plane = values}} : f32[K,{groups},{size}]
  %5 = kv_index %start, %past {{plane = pos}} : i32[K]
  %6 = kv_index %start, %past {{plane = seq}} : i32[K]
  return %2, %3, %4, %5, %6
}}"""
        ins = [q, ("kv", 3, 16), rows["old_k"], rows["old_v"], rows["new_k"], rows["new_v"], old_pos, old_seq,
               pos, seq, start, torch.tensor(past), torch.zeros(3, 8)] + ([slopes] if arg else [])
        outs = [want, torch.cat(k), torch.cat(v), torch.cat([torch.arange(len(t)) for t in k]),
                torch.cat([torch.full((len(t),), s) for s, t in enumerate(k)])]
        case(name, kir, ins, outs, syms=(3, n, 1, keys, 1))


def attention_forms():
    """What else stands in the slots, in a small call: a fresh sequence and a continued one."""
    past, new, heads, groups, size = [0, 3], [4, 1], 4, 2, 3
    n = sum(new)
    q = torch.randn(n, heads, size)
    bias, sinks, gain = torch.randn(5, heads), torch.randn(heads), torch.rand(heads) + 0.5
    pos = torch.cat([torch.arange(p, p + m) for p, m in zip(past, new)])
    seq = torch.cat([torch.full((m,), s) for s, m in enumerate(new)])
    kv = f"kvcache<page 4, {groups} x {size}, f32>"

    def run(name, attrs, slots, tables, weigh, stored=False):
        """weigh(scores [m,k], h, qp [m,1], kp [1,k]) -> weights [m,k]"""
        rows = [p if stored else p + m for p, m in zip(past, new)]
        k, v = ([torch.randn(r, groups, size) for r in rows] for _ in range(2))
        want, row = torch.zeros(n, heads, size), 0
        for s, (p, m) in enumerate(zip(past, new)):
            qp, kp = torch.arange(p, p + m)[:, None], torch.arange(rows[s])[None, :]
            for h in range(heads):
                g = h // (heads // groups)
                w = weigh(q[row:row + m, h] @ k[s][:, g].T * 0.6, h, qp, kp)
                want[row:row + m, h] = torch.nan_to_num(w) @ v[s][:, g]
            row += m
        total, letter, mark = sum(rows), "M" if stored else "K", "stored" if stored else ""
        names = "".join(f", %t{i}" for i in range(len(tables)))
        types = "".join(f", %t{i}: f32[{shape(t)}]" for i, t in enumerate(tables))
        both = f"plane = pos{', ' if stored else ''}{mark}"
        kir = f"""
func @f(%q: f32[N,{heads},{size}], %kv: {kv}, %k: f32[{total},{groups},{size}], %v: f32[{total},{groups},{size}],
        %kp: i32[{total}], %ks: i32[{total}], %p: i32[N], %s: i32[N], %start: i32[S], %past: i32[S],
        %pages: i32[S,8]{types}) -> (f32[N,{heads},{size}], f32[{letter},{groups},{size}], i32[{letter}]) {{
  %0 = kv_append %kv, %k, %v, %kp, %ks, %pages : {kv}
  %1 = attention %q, %0, %p, %s, %start, %past, %pages{names} {{scale = 0.6{attrs}}} {slots} : f32[N,{heads},{size}]
  %2 = kv_read %0, %start, %past, %pages {{{mark}}} : f32[{letter},{groups},{size}]
  %3 = kv_index %start, %past {{{both}}} : i32[{letter}]
  return %1, %2, %3
}}""".replace(" {}", "")
        where = torch.cat([torch.arange(r) for r in rows])
        ins = [q, ("kv", 2, 8), torch.cat(k), torch.cat(v), where,
               torch.cat([torch.full((r,), s) for s, r in enumerate(rows)]), pos, seq,
               torch.tensor([0, new[0]]), torch.tensor(past), torch.zeros(2, 8), *tables]
        case(name, kir, ins, [want, torch.cat(k), where], syms=(2, n, 1, *((1, total) if stored else (total, 1))))

    def hide(s, visible):
        return s.masked_fill(~visible, -INF)

    # A table of relative positions, a sink per head, a window to both sides.
    run("attention_bias_sink", "",
        "score(s, h, q, k | 2) { add(s, $0[min(max(add(sub(k, q), 2), 0), 4), h]) } "
        "mask(h, q, k) { lt(abs(sub(q, k)), 3) } sink(h | 2) { $1[h] }", [bias, sinks],
        lambda s, h, qp, kp: torch.softmax(torch.cat(
            [hide(s + bias[(kp - qp + 2).clamp(0, 4), h], (qp - kp).abs() < 3), sinks[h].expand(len(s), 1)], 1),
            1)[:, :-1])
    # A sink where nothing else is visible.
    run("attention_sink_alone", "", "mask(h, q, k) { lt(k, sub(q, 1)) } sink(h) { neg(h) }", [],
        lambda s, h, qp, kp: torch.softmax(torch.cat([hide(s, kp < qp - 1), torch.full((len(s), 1), -1.0 * h)], 1),
                                           1)[:, :-1])
    # Weights without a normaliser.
    run("attention_relu", ", normaliser = none",
        "score(s, h, q, k) { div(relu(s), add(q, 1)) } mask(h, q, k) { le(k, q) }", [],
        lambda s, h, qp, kp: F.relu(s) / (qp + 1) * (kp <= qp))
    run("attention_linear", ", normaliser = none", "prob(h, q, k | 1) { $0[h] }", [gain],
        lambda s, h, qp, kp: s * gain[h])
    # A factor behind the softmax, a prefix that every row sees.
    run("attention_prob", "",
        "mask(h, q, k) { or(le(k, q), lt(k, 2)) } prob(h, q, k | 1) { div($0[h], add(1, abs(sub(q, k)))) }", [gain],
        lambda s, h, qp, kp: torch.softmax(hide(s, (kp <= qp) | (kp < 2)), 1) * gain[h] / (1 + (qp - kp).abs()))
    # The keys of a memory: none for the first sequence.
    run("attention_stored", ", stored", "", [], lambda s, h, qp, kp: torch.softmax(s, 1), stored=True)


def calls():
    x, w = torch.randn(3, 4), torch.randn(4, 4) / 2
    want = x
    for _ in range(5):
        want = torch.tanh(want @ w) + want
    case("repeat", """
func @layer(%x: f32[3,4], %w: f32[4,4]) -> (f32[3,4]) {
  %0 = region matmul "k" %x, %w (%a: f32[3,4], %b: f32[4,4]) {
    %0 = matmul %a, %b : f32[3,4]
    %1 = tanh %0 : f32[3,4]
    %2 = add %1, %a : f32[3,4]
    return %2
  } : f32[3,4]
  return %0
}
func @f(%x: f32[3,4], %w: f32[4,4]) -> (f32[3,4]) {
  %0 = repeat %x, %w {times = 5, callee = "layer", iter = 1} : f32[3,4]
  return %0
}""", [x, w], [want])


sys.stdout = open(pathlib.Path(__file__).parent / "ops" / "cases.txt", "w")
scalar_functions()
index_functions()
reductions()
rope_tables()
rope()
attention()
calls()
attention_forms()
