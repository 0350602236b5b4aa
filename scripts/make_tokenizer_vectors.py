#!/usr/bin/env python3
"""Writes tests/golden/data/tokenizer_vectors/*.json: small tokenizers with what Hugging Face's
`tokenizers` library makes of nasty texts. Needs `pip install tokenizers` (written with 0.23.3).

A file holds a tokenizer and variants of it: {"about", "tokenizer", "variants": [{"set": members that
replace the tokenizer's, "cases": [{"text", "ids", "decoded", ...}]}]}. Of a case, "special_ids" are
the ids with the tokens that the post-processor adds, "plain_ids" those with special tokens taken as
plain text; both are left out where they equal "ids". A case without "text" is decoded only."""

import copy
import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "data"
CORPUS = (DATA / "carroll-alice.txt").read_text(encoding="utf-8")[:40000].split("\n")

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  two leading, and trailing   ",
    "a" + " " * 37 + "b",
    "tabs\tand\n\nnewlines\r\nCRLF\r\n",
    "don't I'LL we've 's's",
    "x1y22z333 1234567 3.14 \u0661\u0662\u0663 \u00bd\u00b2\u2167\u2460",
    "na\u00efve caf\u00e9 cafe\u0301 \u1e9b\u0323 a\u0323\u0301 a\u0301\u0323",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3002\u6f22\u5b57\u3001\uac00\u11a8 \u1100\u1161",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd\U0001f1ec\U0001f1e7\u2764\ufe0f",
    "nbsp\u00a0em\u2003ideographic\u3000zero\u200bwidth\u2028line\u0085next\u180e!",
    "bom\ufeff nul\x00 esc\x1b del\x7f \ufffd \U0001d400\U0001f130",
    "snake_case camelCase ALLCAPS $5+$6=\u20ac11 (a[b]{c}) <|>~^`",
    "def f(x):\n    return x**2  # two\n",
    "\ufb01ne \uff26\uff55\uff4c\uff4c \u00c5\u212b \u0130I\u0131 \u01c5 \u00df\u1e9e",
    "\u2581under \u2581 \u0120byte <0x41> <unk> <s>x</s>",
    "it's<|end|>  <|end|>and<mask>\t<mask> my-tok myotok  tok   ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]
FEW = [TEXTS[i] for i in (0, 2, 3, 5, 6, 7, 8, 9, 12, 14)]


def train(model, size, alphabet=(), special=(), **parts):
    """A tokenizer whose special tokens are ordinary pieces until add_tokens says otherwise."""
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    trainer = BpeTrainer(vocab_size=size, initial_alphabet=list(alphabet),
                         special_tokens=list(special), limit_alphabet=256, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def to_json(tokenizer):
    return json.loads(tokenizer.to_str())


def cases_of(tokenizer, texts):
    cases = []
    for text in texts:
        case = {"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids}
        with_special = tokenizer.encode(text).ids
        if with_special != case["ids"]:
            case["special_ids"] = with_special
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        if plain != case["ids"]:
            case["plain_ids"] = plain
        decoded = tokenizer.decode(case["ids"], skip_special_tokens=False)
        skipped = tokenizer.decode(case["ids"])
        case["decoded"] = decoded
        if skipped != decoded:
            case["decoded_skipping_special"] = skipped
        cases.append(case)
    return cases


def decoded_cases(tokenizer, id_lists):
    cases = []
    for ids in id_lists:
        try:
            cases.append({"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
        except BaseException as failure:  # Strip panics where nothing is left; there is no answer
            assert type(failure).__name__ == "PanicException", failure
    return cases


def write(name, about, tokenizer, variants=({},), texts=TEXTS, ids=()):
    """`variants` are members to replace; `ids` are lists to decode."""
    base = tokenizer if isinstance(tokenizer, dict) else to_json(tokenizer)
    out = {"about": about, "tokenizer": base, "variants": []}
    for members in variants:
        changed = copy.deepcopy(base)
        changed.update(members)
        made = Tokenizer.from_str(json.dumps(changed))
        cases = cases_of(made, texts)
        cases += decoded_cases(made, ids)
        out["variants"].append({"set": members, "cases": cases})
    folder = DATA / "tokenizer_vectors"
    folder.mkdir(exist_ok=True)
    text = json.dumps(out, ensure_ascii=True, separators=(",", ":"))
    (folder / f"{name}.json").write_text(text + "\n")
    print(f"{name}: {len(text)} bytes, {sum(len(v['cases']) for v in out['variants'])} cases")


def part(kind, value):
    """The JSON of one part of a tokenizer."""
    tokenizer = Tokenizer(BPE())
    setattr(tokenizer, kind, value)
    return {kind: to_json(tokenizer)[kind]}


def pre(value):
    return part("pre_tokenizer", value)


def byte_level():
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t = train(BPE(), 420, alphabet, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False),
              decoder=decoders.ByteLevel(), normalizer=normalizers.NFC(),
              post_processor=processors.ByteLevel(trim_offsets=True))
    t.add_special_tokens(["<|end|>"])
    t.add_tokens(["  ", "    "])
    variants = [pre(pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex))
                for prefix in (False, True) for regex in (True, False)]
    broken = [[t.token_to_id(c) for c in chars] for chars in
              ("\u00e6\u0139", "\u00e6\u0139\u00a5\u00e6", "\u00bb\u00e6a", "\u00f0\u0141\u013bA",
               "\u00ed\u0142\u0122", "\u00c0\u00bb")]
    write("byte_level", "GPT-2: bytes, contractions, blanks in front; broken characters", t,
          variants, ids=broken)
    # The same merges in the older spelling.
    old = to_json(t)
    old["model"]["merges"] = [" ".join(merge) for merge in old["model"]["merges"]]
    for added in ("type", "ignore_merges", "byte_fallback"):
        del old["model"][added]
    write("byte_level_old_merges", "merges as strings, fewer members in the model", old, texts=FEW)


def falcon_mamba():
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    steps = pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
    ])
    special = [">>TITLE<<", ">>ABSTRACT<<", "<|end|>"]
    t = train(BPE(), 420, alphabet, special, pre_tokenizer=steps, decoder=decoders.ByteLevel(),
              post_processor=processors.ByteLevel(trim_offsets=True))
    write("falcon_mamba", "FalconMamba's steps: punctuation, bytes, digits in threes", t,
          texts=TEXTS + [">>TITLE<<A title>>ABSTRACT<<", "12345678 1,234.5 v1.23"])


def codestral_mamba():
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<unk>", "<s>", "</s>"]
    normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"),
                                       normalizers.Replace(" ", "\u2581")])
    decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                 decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    model = dict(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    # Trained on words, so that merges do not cross blanks.
    words = train(BPE(**model), 620, (), special + byte_pieces,
                  pre_tokenizer=pre_tokenizers.Metaspace())
    base = to_json(words)
    base["added_tokens"] = [token for token in base["added_tokens"] if token["id"] < 3]
    # SentencePiece merges any two neighbours that are a piece together, the lowest id first: list
    # all those merges, as its converters do. The scores are for readers that have no merges.
    vocab = base["model"]["vocab"]
    plain = {piece for piece, i in vocab.items() if i >= 3 + 256}
    merges = [[piece[:cut], piece[cut:]]
              for piece in sorted(plain, key=vocab.get) for cut in range(1, len(piece))
              if piece[:cut] in plain and piece[cut:] in plain]
    base["model"]["merges"] = merges
    base["pre_tokenizer"] = None
    base.update(part("normalizer", normalizer))
    base.update(part("decoder", decoder))
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    both = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1),
                                                                              ("</s>", 2)])
    base.update(part("post_processor", template))
    def byte(*values):
        return [3 + value for value in values]
    rows = [byte(0xE5, 0x8F, 0xAB), byte(0xE5, 0x8F), byte(0xE5) + [300] + byte(0x0A),
            byte(0xFF, 0xFE), byte(0xF0, 0x9F, 0x98), [1, 300, 2], [0] + byte(0x20, 0x20)]
    write("codestral_mamba", "Llama's and Mistral's: SentencePiece with byte fallback", base,
          [{}, part("post_processor", both), {"normalizer": None, "decoder": None}],
          ids=rows)

    metaspace = dict(base, normalizer=None)
    variants = []
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            marker = dict(replacement="\u2581", prepend_scheme=scheme)
            variants.append({**pre(pre_tokenizers.Metaspace(**marker, split=split)),
                             **part("decoder", decoders.Metaspace(**marker, split=split))})
    older = {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}
    variants.append({"pre_tokenizer": older, "decoder": older})
    write("metaspace", "Metaspace: prepend schemes, with and without splitting", metaspace, variants,
          texts=[TEXTS[i] for i in (0, 1, 2, 3, 4, 5, 9, 17, 18)])


def llama_3():
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
             r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    steps = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(words), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    t = train(BPE(ignore_merges=True), 420, alphabet, ["<|begin|>", "<|end|>"],
              pre_tokenizer=steps, decoder=decoders.ByteLevel())
    base = to_json(t)
    # A piece that no merge makes: only ignore_merges finds it.
    base["model"]["vocab"]["\u0120Zanzibar"] = 420
    template = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    base["post_processor"] = {"type": "Sequence", "processors": [
        part("post_processor", processors.ByteLevel())["post_processor"],
        part("post_processor", template)["post_processor"]]}
    write("ignore_merges", "a split by an expression, then bytes; whole words before merges", base,
          texts=TEXTS + ["in Zanzibar", " Zanzibars"])


def splits():
    t = train(BPE(unk_token="<unk>"), 200, (), ["<unk>"],
              pre_tokenizer=pre_tokenizers.Whitespace(), decoder=decoders.Fuse())
    base = to_json(t)
    base["added_tokens"] = []
    behaviors = ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")
    variants = [pre(pre_tokenizers.Split(pattern, behavior, invert))
                for pattern in (" ", "a", Regex(r"\s+|\d")) for behavior in behaviors
                for invert in (False, True)]
    texts = ["", "aabaacaa", "  a  b 12 34  ", "the cat sat, at last", "abc"]
    write("split", "Split: every behaviour, both ways", base, variants, texts)

    variants = [pre(pre_tokenizers.Digits(individual_digits=each)) for each in (False, True)]
    variants += [pre(pre_tokenizers.Punctuation(behavior)) for behavior in behaviors]
    variants += [pre(pre_tokenizers.Whitespace()), pre(pre_tokenizers.WhitespaceSplit()),
                 pre(pre_tokenizers.CharDelimiterSplit("a")),
                 pre(pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),
                                              pre_tokenizers.Punctuation(),
                                              pre_tokenizers.Digits(individual_digits=True)]))]
    write("classes", "Digits, Punctuation, Whitespace and their like", base, variants, FEW)

    # What Oniguruma and PCRE2 read differently, or nearly.
    expressions = [
        r"\s+", r"\S+", r"\w+", r"\W", r"[^\w\s]+", r"\h+", r"[\h\s]", r"\v", r"\bt", r"\d{1,2}",
        r"\p{N}{1,3}+", r"a{2}?", r"a{,2}", r"[[:punct:]]+", r"[[:space:][:alpha:]]+", r"\p{Han}",
        r"\p{^L}", r"[^\S ]", r"(?m).+", r".+", r"^.|.$", r"(?i)t", r"(?i:H)e", r"\u0065|\x{61}",
        r"(?<=\d)(?=\d)", r"x*", r"(?=[A-Z])", r"[]a]", r"\p{L}++|\p{P}", r"[\p{P}\$\+<=>\^~\|`]+",
    ]
    variants = [pre(pre_tokenizers.Split(Regex(expression), "isolated"))
                for expression in expressions]
    texts = ["Hello, the 1234567\nAB cd\r\n\tface", TEXTS[8], TEXTS[9], TEXTS[12], TEXTS[14],
             "aaaaa \u00b2\u00bd\u2460 \u3002x{,2}"]
    write("expressions", "regular expressions in Oniguruma's dialect", base, variants, texts)


def normal_forms():
    t = train(BPE(unk_token="<unk>", byte_fallback=True), 400, (),
              ["<unk>"] + [f"<0x{byte:02X}>" for byte in range(256)],
              pre_tokenizer=pre_tokenizers.Whitespace(),
              decoder=decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]))
    base = to_json(t)
    base["added_tokens"] = []
    base["pre_tokenizer"] = None
    n = normalizers
    parts = [n.NFC(), n.NFD(), n.NFKC(), n.NFKD(), n.Lowercase(), n.Prepend("_"),
             n.Replace("ll", "LL"), n.Replace(Regex(r"\s+"), " "),
             n.Sequence([n.NFKD(), n.Replace(Regex(r"\p{M}"), ""), n.Lowercase()]), n.Sequence([])]
    write("normalizers", "normal forms, case and replacements", base,
          [part("normalizer", each) for each in parts],
          texts=["", TEXTS[2], TEXTS[8], TEXTS[9], TEXTS[10], TEXTS[16], "\u0327\u0301a\u0301\u0327"])


def added_tokens():
    t = train(BPE(unk_token="<unk>"), 200, (), ["<unk>"],
              pre_tokenizer=pre_tokenizers.Whitespace(), decoder=decoders.Fuse())
    t.add_special_tokens([AddedToken("<|end|>"), AddedToken("<mask>", lstrip=True),
                          AddedToken("<s>", rstrip=True)])
    t.add_tokens([AddedToken("tok", single_word=True, normalized=False),
                  AddedToken("my-tok", normalized=False), AddedToken("my", normalized=False),
                  AddedToken("CaF\u00c9", normalized=True), AddedToken("the", normalized=True),
                  AddedToken("</s>x", normalized=False), AddedToken("  ", normalized=False)])
    base = to_json(t)
    texts = TEXTS[17:19] + [
        "tok tok- -tok toks \u00e9tok tok\u0301 tok", "my my-tok my-to mymy-toktok",
        "a <mask> b\t<mask><mask>", "<s>  a<s>b <s>", "caf\u00e9 CAF\u00c9 cafe\u0301 CaF\u00c9",
        "The the other THE", "<|end|><|end|>x<|en|end|>", "</s></s>x", "      a  ", "<|end|>"]
    lower = part("normalizer", normalizers.Lowercase())
    nfd = part("normalizer", normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()]))
    write("added_tokens", "added tokens in text: longest first, stripping, whole words, normal form",
          base, [{}, lower, nfd], texts)


def decoder_parts():
    vocab = ["<unk>", "\u2581a", "\u2581\u2581", "b\u2581", "c", "ab", "aa", "<0x41>", "<0xE6>",
             "<0x97>", "<0xA5>", "a", "", "<0x4g>", "\u0120x", "\u00e6\u0139", "\u00a5", " "]
    t = Tokenizer(BPE(vocab={piece: i for i, piece in enumerate(vocab)}, merges=[]))
    t.add_special_tokens(["<|end|>"])
    d = decoders
    parts = [d.ByteLevel(), d.ByteFallback(), d.Fuse(), d.Metaspace(),
             d.Metaspace(prepend_scheme="never"), d.Strip("a", 1, 0), d.Replace("\u2581", " "),
             d.Replace(Regex("a+"), "-"),
             d.Sequence([d.Fuse(), d.Replace("ab", "_")]), d.Sequence([d.Fuse(), d.Strip("a", 2, 3)]),
             d.Sequence([d.Replace("\u2581", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)]),
             d.Sequence([d.Metaspace(), d.Fuse(), d.Replace("aa", "a")]),
             d.Sequence([d.ByteLevel(), d.Strip("c", 0, 1)])]
    variants = [{"decoder": None}] + [part("decoder", each) for each in parts]
    ids = [[], [1], [1, 2, 3], [2, 1, 3, 4], [11, 11, 5, 6, 4], [4, 11, 6, 11], [6, 11, 11],
           [8, 9, 10], [8, 9], [8, 4, 9], [7, 8, 9, 10, 7], [13, 12, 12, 4], [15, 16, 14],
           [15, 14], [16, 15, 4, 4], [4, 18, 4], [18], [99, 4, 99], [5, 3, 5], [17, 17, 4, 17]]
    write("decoders", "every decoder, given ids", t, variants, texts=(), ids=ids)


def main():
    byte_level()
    falcon_mamba()
    codestral_mamba()
    llama_3()
    splits()
    normal_forms()
    added_tokens()
    decoder_parts()


if __name__ == "__main__":
    main()
