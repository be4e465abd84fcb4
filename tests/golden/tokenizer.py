#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds the tokenizer goldens; tokenizer/FORMAT.md describes every file.

The vocabularies are trained on a small text of our own making; the normalizer,
pre-tokenizer, post-processor and decoder are, key for key, those that the
tokenizer.json files of GPT-2, Llama-2 and Llama-3 have.
"""
import argparse
import json
import os
import random
import struct
import unicodedata

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "tokenizer")
SHIPPED = os.path.join(HERE, "..", "..", "examples", "shakespeare", "model", "tokenizer.json")
PLAYS = os.path.join(HERE, "..", "..", "examples", "shakespeare", "tinyshakespeare.txt")
SAME = 0xFFFFFFFF

LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Sentences in several scripts, so that merges reach beyond ASCII.
SENTENCES = """The river was high and the bridge was closed, so we didn't cross it until Monday.
I've counted 12 boats, 340 people and 1,024 birds; they're all gone now. We'll see. I'd say so.
for (int i = 0; i < n; i++) {
    if (a[i] != 0x7f) { sum += a[i] * 2.5e-3; }
}
def area(width, height=10):
\treturn width * height  # square metres
Über die Brücke gehen täglich größere Züge; die Straße bleibt naß.
L'été dernier, la forêt était déjà très sèche, n'est-ce pas ? Où êtes-vous allés ?
El niño comió una piña en la montaña. ¿Qué pasó después? ¡Nada!
Река была широкая, и мост был закрыт до понедельника. Это было вчера.
Ο ποταμός ήταν πλατύς και η γέφυρα ήταν κλειστή.
今天的天气很好，我们去河边看船。昨天下雨了，所以没有去。
きょうは川のそばで船を見ました。橋はまだ閉まっています。
오늘은 날씨가 좋아서 강가에 갔습니다. 다리는 닫혀 있었습니다.
النهر كان واسعا والجسر كان مغلقا حتى يوم الاثنين.
הנהר היה רחב והגשר היה סגור עד יום שני.
नदी चौड़ी थी और पुल सोमवार तक बंद था।
แม่น้ำกว้างและสะพานปิดจนถึงวันจันทร์
🙂 🚀 👍🏽 👩‍👩‍👧‍👦 🇫🇷 ❤️ ☕ → ≤ ≥ € £ “quoted” ‘single’ — dash … end
"""


def corpus():
    """Lines for training; the plays give English, the sentences everything else."""
    with open(PLAYS, encoding="utf-8") as f:
        plays = f.read(60000)
    return plays + "\n" + (SENTENCES + "\n") * 40


def added(idx, content, normalized):
    return {"id": idx, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": normalized, "special": True}


def train(pre, alphabet, size, normalizer=None, specials=()):
    tok = Tokenizer(models.BPE())
    if normalizer is not None:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre
    tok.train_from_iterator([corpus()], trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=list(specials),
        show_progress=False))
    model = json.loads(tok.to_str())["model"]
    return model["vocab"], model["merges"]


def build_gpt2():
    vocab, merges = train(pre_tokenizers.ByteLevel(add_prefix_space=False),
                          pre_tokenizers.ByteLevel.alphabet(), 899)
    vocab = {**vocab, "<|endoftext|>": len(vocab)}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(len(vocab) - 1, "<|endoftext|>", True)],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {"dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "vocab": vocab,
                  "merges": [" ".join(m) for m in merges]},
    }


def build_llama2():
    norm = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    vocab, merges = train(pre_tokenizers.Split(Regex("▁*[^▁\n]+|▁+|\n"), "isolated"),
                          ["▁"], 900, norm, specials)
    # Sentencepiece has no piece with a newline in it: it is spelled with byte tokens.
    vocab = {t: i for t, i in vocab.items() if t != "\n"}
    vocab = {t: n for n, (t, _) in enumerate(sorted(vocab.items(), key=lambda kv: kv[1]))}
    template = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    second = [{"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(i, t, False) for i, t in enumerate(specials[:3])],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": template,
                           "pair": template + second,
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "vocab": vocab,
                  "merges": [" ".join(m) for m in merges]},
    }


def llama3_specials():
    named = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
             "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>",
             "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>",
             "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]
    return named + [f"<|reserved_special_token_{i}|>" for i in range(3, 248)]


def build_llama3():
    split = pre_tokenizers.Split(Regex(LLAMA3_REGEX), "isolated", invert=False)
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocab, merges = train(pre_tokenizers.Sequence([split, level]),
                          pre_tokenizers.ByteLevel.alphabet(), 880)
    # Words that no merge reaches: only ignore_merges finds them.
    for word in ("Ġzebra", "Ġquixotic", "ĠBanana", "xylophone", "ĠĠĠĠĠĠĠ", "777", "ĠFünf", "!?!?"):
        word = word.replace("ü", "Ã¼")
        assert word not in vocab
        vocab[word] = len(vocab)
    base = len(vocab)
    specials = llama3_specials()
    bos = {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}
    bos_b = {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 1}}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(base + i, t, False) for i, t in enumerate(specials)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA3_REGEX}, "behavior": "Isolated",
             "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": False}]},
        "post_processor": {"type": "Sequence", "processors": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False,
             "use_regex": True},
            {"type": "TemplateProcessing",
             "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
             "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, bos_b,
                      {"Sequence": {"id": "B", "type_id": 1}}],
             "special_tokens": {"<|begin_of_text|>": {
                 "id": "<|begin_of_text|>", "ids": [base], "tokens": ["<|begin_of_text|>"]}}}]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
                  "vocab": vocab, "merges": merges},
    }


SPECIAL_WORDS = ["<|endoftext|>", "<unk>", "<s>", "</s>", "<|begin_of_text|>", "<|end_of_text|>",
                 "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<0x0A>", "<0xFF>",
                 "<|reserved_special_token_247|>", "<|reserved_special_token_12|>",
                 "<|reserved_special_token_999|>", "<|endoftext|", "<|endoftext|>>", "< s>", "<S>",
                 "<|begin_of_text|><|begin_of_text|>", "<s></s><unk>", "<<s>>"]

# White_Space of the Unicode property list, then lookalikes that are not in it.
SPACES = [chr(c) for c in (0x20, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85, 0xA0, 0x1680, 0x2000, 0x2003,
                           0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000,
                           0x180E, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x1C, 0x1D, 0x1E, 0x1F)]

FIXED = [
    "", " ", "  ", "   ", "a", " a", "a ", " a ", "  a  b   c    ", "\n", "\n\n", "\r\n", "\r", "\r\r\n\n",
    "\t", "\t\t", "\t a", " \t\n a", "a\n", "a\n\n", "a \n", "a \n b", "a  \n  b", "a\n \n b\n", "\n a", "\n  a",
    "Hello", "Hello world", " Hello world ", "Hello, world!", "HELLO WORLD", "hElLo wOrLd",
    "don't", "DON'T", "Don'T", "we've we'll we're I'm I'd it's can't", "WE'VE WE'LL WE'RE I'M I'D IT'S CAN'T",
    "'s", "'S", "''s", "'ss", "' s", "'\u017f", "x'\u017fy", "'ll'll", "'Ll", "'lL", "'re've'd'm't", "rock 'n' roll", "’s it’s",
    "o'clock", "'tis", "'twas the night", "y'all'd've", "'", "''", "\"'\"", "`a`", "a'", "'a", "a'b'c",
    "0", "1", "12", "123", "1234", "12345", "123456", "1234567", " 1 12 123 1234", "1,234,567.89", "3.14159e-10", "0x1F",
    "777", "7777", "77777", "777777", "1e5", "1_000_000", "v1.2.3", "½", "²³", "x²", "Ⅷ", "①②③", "٠١٢٣", "०१२३४", "１２３４", "十二",
    "1st 2nd 3rd", "a1b2c3", "1a", "a1", "2x", "100%", "$100", "€5", "#1", "no.1", "1-2", "1–2", "+1", "-1",
    "zebra", " zebra", " zebras", " quixotic", "quixotic", " Banana", " Bananas", "xylophone", " xylophone", "       x", "        x", "      x", " Fünf", "!?!?", "!?!?!", " !?!?",
    "a.b", "a. b", "...", "....", "…", "a...b", "?!", "?!?!", "!!!", "!!!\n", "!!!\r\n", "!!!\n\n!!!", "-- --", "---", "___", "=====", "*/", "/*", "//", "\\", "\\n", "\\\\", "{}[]()<>", "a=b;", "a == b", "a != b && c", "x->y", "::", "@", "#include <stdio.h>\n\nint main(void)\n{\n    return 0;\n}\n",
    "def f(x):\n\treturn x  # y\n", "{\"a\": [1, 2, {\"b\": null}]}", "<html><body class=\"x\">&nbsp;</body></html>", "https://example.org/a/b?c=d&e=f#g", "name@example.org", "C:\\dir\\file.txt", "/usr/bin/env", "SELECT * FROM t WHERE a='b';",
    "é", "e\u0301", "É", "E\u0301", "ñ", "n\u0303", "ü", "u\u0308", "ﬁ", "ﬀ", "ß", "ẞ", "İ", "ı", "ǅ", "ﷺ", "Å", "\u212b", "Ω", "\u2126", "K", "\u212a", "Ⓐ", "ª", "º", "µ", "μ",
    "naïve café résumé", "Ünïcödé", "Zürich", "Đà Nẵng", "Łódź", "Ærøskøbing", "Þór", "ſ", "aſb",
    "Ελληνικά", "Русский язык", "русский 123 текст", "Ѝ", "Й", "И\u0306", "Հայերեն", "ქართული",
    "中文", "中文字符", "中文 字符", "中文，字符。", "我有12只猫", "日本語", "カタカナ", "ひらがな", "ｶﾀｶﾅ", "が", "か\u3099", "한국어", "한국어 문장", "\u1112\u1161\u11ab", "ᄒ", "𠮷", "𠮷野家", "㍿", "〇",
    "العربية", "مرحبا بالعالم", "السَّلَامُ عَلَيْكُمْ", "١٢٣", "עברית", "שָׁלוֹם", "فارسی می‌خواهم", "\u200fabc\u200e", "\u202eabc\u202c", "\u2067x\u2069", "אבג abc דהו",
    "हिन्दी", "नमस्ते दुनिया", "தமிழ்", "বাংলা", "ไทย", "ภาษาไทย", "ລາວ", "မြန်မာ", "ខ្មែរ", "བོད", "አማርኛ", "ᏣᎳᎩ", "ᐃᓄᒃᑎᑐᑦ", "ᚠᚢᚦ", "𐎀𐎁", "𓀀𓀁", "𝔘𝔫𝔦", "𝐀𝟏", "𝟘𝟙",
    "🙂", "🙂🙂", " 🙂", "a🙂b", "👍🏽", "👩‍👩‍👧‍👦", "👨‍💻", "🏳️‍🌈", "🇫🇷🇩🇪", "🇫", "❤️", "❤", "☕", "1️⃣", "#️⃣", "🫠", "🧑🏿‍🚀", "\u200d", "\ufe0f", "👩\u200d", "\U0001f3fd", "\U000e0067\U000e007f", "😀\n😀", "→←", "≤≥", "∑∏∫", "√2", "±", "°C", "™", "©", "№5",
    "a\u0300\u0301\u0302\u0303b", "\u0300", " \u0300", "a\u20dd", "z\u0351\u032b\u0343\u036a\u0302\u0368\u034e", "\u0363", "1\u0301", "!\u0301", "\n\u0301", "\u0e33", "\u0f71\u0f72",
    "\x00", "a\x00b", "\x00\x00", "\x01", "\x07", "\x08", "\x1b[31mred\x1b[0m", "\x7f", "a\x7fb", "\x80", "\x9f", "a\x85b", "\x1c\x1d\x1e\x1f", "\u2028", "\u2029", "a\u2028b", "\u00a0a", "a\u00a0b", "\u00a0\u00a0", "\u3000", "a\u3000b", "\u200b", "a\u200bb", "\ufeff", "\ufeffabc", "\u00ad", "so\u00adft", "\u180e", "\u2060",
    "\ufffd", "\ufffda", "\ufffd\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\U0001fffe", "\ue000", "\uf8ff", "\U000f0000", "\U00100000", "\ufdd0", "\ud7ff", "\ufffc", "\u0378"[:0] + "\uFFF9x\uFFFB",
    "Ã©", "â‚¬", "Ġ", "Ċ", "ĠĠ", "Ġhello", "▁", "▁▁", "▁a", "a▁b", " ▁ ", "a ▁", "Ā", "ġ", "č", "##ing", "@@", "</w>", "ing</w>", "\\xff", "\\u0000", "%00", "&#0;", "\xc3\x28", "\xff\xfe",
    "the the the the", "The the THE tHe", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a" * 300, "ab" * 200, "the" * 100, " the" * 100, "x" * 1000, "-" * 200, " " * 64, " " * 65, "\n" * 50, "\t" * 33, "\r\n" * 20, "0" * 50, "é" * 80, "中" * 60, "🙂" * 40, "\u0301" * 40, "A" * 100, "!" * 99, "." * 500, "=-" * 70,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft", "Lopadotemachoselachogaleokranioleipsanodrimhypotrimmatosilphio", "pneumonoultramicroscopicsilicovolcanoconiosis" * 4, "supercalifragilisticexpialidocious",
]


def chosen_strings():
    """FIXED, then combinations of awkward pieces with lines of text until there are 2,000."""
    rng = random.Random(20)
    words = sorted(set(corpus().split()))
    lines = [s for s in corpus().split("\n")[:2500] if s.strip()] + SENTENCES.split("\n")
    tails = ["'s", "'S", "'t", "'re", "'VE", "'m", "'ll", "'d", "'x", "’s", "'\u017f", "'"]
    marks = ["!", "?", ".", ",", ";", ":", "…", "—", "\"", "(", ")", "-", "%", "$", "\n", "\r\n"]
    out = dict.fromkeys(FIXED)
    for s in SPECIAL_WORDS:
        for form in ("{}", "a{}b", " {} ", "{}{}", "x {} y", "{}\n", "\n{}", "Hello{}, world", "\u00e9{}\u4e2d"):
            out[form.replace("{}", s)] = None
    for a in SPACES:
        for form in ("{}", "a{}b", "{}{}x", "x{}", " {}1", "!{}!", "{}\n{}", "\u4e2d{}a"):
            out[form.replace("{}", a)] = None
    for w in rng.sample([w for w in words if w.isalpha()], 12):
        for t in tails:
            out[w + t] = None
            out[f" {w.upper()}{t}{rng.choice(marks)}"] = None
    for n in list(range(1, 12)) + [16, 31, 100]:
        out["9" * n + "a"] = None
        out["x" + " " * n + "y"] = None
        out["x" + " " * n] = None
        out["x" + "\n" * n + " y"] = None
        out[" " * n + "\n" + " " * n + "z"] = None
        out["(" + "!" * n + "\r\n" + ")"] = None
    pieces = (FIXED[:80] + SPACES + SPECIAL_WORDS + marks + tails)
    while len(out) < 2000:
        kind = rng.randrange(4)
        if kind == 0:
            s = rng.choice(lines)
        elif kind == 1:
            s = "".join(rng.choice(pieces) for _ in range(rng.randint(2, 6)))
        elif kind == 2:
            s = "".join(rng.choice((rng.choice(words), rng.choice(SPACES), rng.choice(marks)))
                        for _ in range(rng.randint(2, 10)))
        else:
            line = rng.choice(lines)
            i, j = sorted((rng.randint(0, len(line)), rng.randint(0, len(line))))
            s = line[i:j] + rng.choice(FIXED) + line[j : j + 20]
        out[s] = None
    strings = list(out)[:2000]
    assert len(strings) == 2000 and all(len(s.encode()) < 65536 for s in strings)
    return strings


RANGES = [(0x20, 0x7E)] * 6 + [
    (0x00, 0x1F), (0x7F, 0xFF), (0x100, 0x24F), (0x250, 0x36F), (0x370, 0x3FF), (0x400, 0x52F),
    (0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1FFF),
    (0x2000, 0x206F), (0x2070, 0x218F), (0x2190, 0x23FF), (0x2460, 0x27BF), (0x3000, 0x30FF),
    (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xFB00, 0xFDFF), (0xFE00, 0xFFFF),
    (0x10000, 0x100FF), (0x10300, 0x103FF), (0x1D400, 0x1D7FF), (0x1F300, 0x1F6FF),
    (0x1F900, 0x1F9FF), (0x20000, 0x2A6DF), (0xE0000, 0xE007F), (0x10FF00, 0x10FFFF)]


def known(c):
    """True for characters whose class cannot depend on the version of the Unicode tables."""
    return (unicodedata.category(chr(c)) not in ("Cn", "Cs") or (c & 0xFFFE) == 0xFFFE
            or 0xFDD0 <= c <= 0xFDEF)


def random_strings(count, seed):
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        mixed, chars = rng.random() < 0.5, []
        lo, hi = rng.choice(RANGES)
        for _ in range(rng.randint(1, 10)):
            if mixed:
                lo, hi = rng.choice(RANGES)
            if rng.random() < 0.12:
                chars.append(rng.choice(SPACES + ["'s", "'ll", "'\u017f", "1", "\n"]))
                continue
            c = rng.randint(lo, hi)
            while not known(c):
                c = rng.randint(lo, hi)
            chars.append(chr(c))
        out.append("".join(chars))
    return out


def fnv1a(data):
    h = 2166136261
    for b in data:
        h = (h ^ b) * 16777619 & 0xFFFFFFFF
    return h


def pack_strings(path, strings):
    with open(path, "wb") as f:
        f.write(struct.pack("<I", len(strings)))
        for s in strings:
            b = s.encode()
            f.write(struct.pack("<H", len(b)) + b)


def pack_ids(ids):
    return struct.pack(f"<H{len(ids)}H", len(ids), *ids)


def pack_text(text, reference):
    if reference is not None and text == reference:
        return struct.pack("<I", SAME)
    b = text.encode()
    return struct.pack("<I", len(b)) + b


def write_case(name, tok, chosen, noise, seed):
    folder = os.path.join(OUT, name)
    os.makedirs(folder, exist_ok=True)
    used = set()
    with open(os.path.join(folder, "chosen.bin"), "wb") as f:
        f.write(struct.pack("<I", len(chosen)))
        for s in chosen:
            ids = tok.encode(s, add_special_tokens=True).ids
            a, b = tok.decode(ids, False), tok.decode(ids, True)
            used.update(ids)
            f.write(pack_ids(ids) + pack_text(a, s) + pack_text(b, a))
    with open(os.path.join(folder, "random.bin"), "wb") as f:
        f.write(struct.pack("<I", len(noise)))
        for s in noise:
            ids = tok.encode(s, add_special_tokens=True).ids
            used.update(ids)
            f.write(struct.pack("<II", fnv1a(struct.pack(f"<{len(ids)}I", *ids)),
                                fnv1a(tok.decode(ids, False).encode())))
    rng = random.Random(seed)
    vocab = sorted(tok.get_vocab().values())
    raw = sorted(i for t, i in tok.get_vocab().items() if len(t) == 1 or t.startswith("<0x"))
    with open(os.path.join(folder, "decode.bin"), "wb") as f:
        f.write(struct.pack("<I", 500))
        for n in range(500):
            if n % 4 < 2:
                ids = [rng.choice(raw if n % 4 else vocab) for _ in range(rng.randint(1, 12))]
            else:
                # Real text with one token lost, and two texts joined.
                ids = tok.encode(rng.choice(noise)).ids
                if n % 4 == 2 and len(ids) > 1:
                    ids.pop(rng.randrange(len(ids)))
                else:
                    ids += tok.encode(rng.choice(noise)).ids
            a = tok.decode(ids, False)
            f.write(pack_ids(ids) + pack_text(a, None) + pack_text(tok.decode(ids, True), a))
    print(f"{name}: {len(vocab)} tokens, {len(used)} of them appear in the expected ids")
    assert len(used) > 0.5 * len(vocab) or name == "llama3"


def check_traps(toks):
    """The strings must be able to tell the three apart and to show each trap."""
    llama2, llama3, gpt2 = toks["llama2"], toks["llama3"], toks["gpt2"]
    assert llama3.encode(" zebra").tokens[1:] == ["Ġzebra"]
    assert len(gpt2.encode(" zebra").ids) > 1
    assert llama3.encode("x'\u017fy").tokens != llama3.encode("x'zy").tokens
    assert llama2.encode("a</s>b").tokens == ["<s>", "▁a", "</s>", "▁b"]
    assert llama2.encode("\n").tokens == ["<s>", "▁", "<0x0A>"]
    assert llama2.encode("").ids == [1]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", default="", help="one name, for example shakespeare")
    args = p.parse_args()
    os.makedirs(OUT, exist_ok=True)
    chosen, noise = chosen_strings(), random_strings(10000, 7)
    pack_strings(os.path.join(OUT, "strings_chosen.bin"), chosen)
    pack_strings(os.path.join(OUT, "strings_random.bin"), noise)
    toks = {}
    for name, build in (("gpt2", build_gpt2), ("llama2", build_llama2), ("llama3", build_llama3)):
        folder = os.path.join(OUT, name)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "tokenizer.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(build(), f, ensure_ascii=False, indent=1)
            f.write("\n")
        toks[name] = Tokenizer.from_file(path)
    check_traps(toks)
    if os.path.exists(SHIPPED):
        toks["shakespeare"] = Tokenizer.from_file(SHIPPED)
    for seed, (name, tok) in enumerate(toks.items()):
        if args.only in ("", name):
            write_case(name, tok, chosen, noise, seed)


if __name__ == "__main__":
    main()
