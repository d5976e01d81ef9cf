"""Word by word the ids are those of the tokenizers library, for every kind of tokenizer that is taken and any text."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from trainwright.storage.tokens import word_cache
from trainwright.storage.tokens.canaries import CANARIES
from trainwright.storage.tokens.word_cache import WordCache, word_cache_for

LLAMA3, QWEN2 = word_cache._PATTERNS
TEXT = Path(__file__).read_text() + Path(word_cache.__file__).read_text()
_ASCII = [chr(code) for code in range(128)]
_OFTEN = [
    *"  \n\t\r'",
    "'s",
    "'S",
    "'ll",
    " a",
    "word",
    " word",
    "12",
    "1234",
    "...",
    " (",
    "\n\n",
    "   ",
    "é",
    "你好",
    "e\u0301",
]
_RARE = [
    "\u00a0",
    "\u0085",
    "\u2028",
    "\u3000",
    "\ufeff",
    "\u0301",
    "ſ",
    "'ſ",
    "²",
    "½",
    "𝟙",
    "<tool>",
    "<|endoftext|>",
    "ﬁ",
]


def splitting(pattern: str) -> Any:
    split = pre_tokenizers.Split(Regex(pattern), "isolated", invert=False)
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


KINDS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama3": splitting(LLAMA3),
    "qwen2": splitting(QWEN2),
}


def trained(kind: str, normalizer: Any = None, added: list[AddedToken] | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = KINDS[kind]
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT, *CANARIES], trainer)
    tokenizer.add_tokens(added or [])
    tokenizer.encode_special_tokens = True
    return tokenizer


def cache_of(tokenizer: Tokenizer) -> WordCache:
    cache = word_cache_for(tokenizer, "uint16")
    assert cache is not None
    return cache


def assert_same(tokenizer: Tokenizer, cache: WordCache, texts: list[str]) -> None:
    expected = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    for text, ids, encoding in zip(texts, cache.encode(texts), expected, strict=True):
        assert ids.tolist() == encoding.ids, repr(text)


def any_text(rng: random.Random) -> str:
    kinds = rng.choice([[_ASCII], [_OFTEN], [_ASCII, _OFTEN], [_ASCII, _OFTEN, _OFTEN, _RARE]])
    words = [rng.choice(rng.choice(kinds)) for _ in range(rng.randrange(60))]
    return "".join(words)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalizer", [None, normalizers.NFC(), normalizers.NFKC()], ids=["none", "nfc", "nfkc"])
def test_ids_are_the_librarys(kind: str, normalizer: Any, rng: random.Random) -> None:
    tokenizer = trained(kind, normalizer, [AddedToken("<tool>", normalized=False), AddedToken("zzz", single_word=True)])
    cache = cache_of(tokenizer)
    lines = TEXT.splitlines(keepends=True)
    assert_same(tokenizer, cache, [TEXT, *lines, *CANARIES])
    for _ in range(300):
        texts = [any_text(rng) for _ in range(10)]
        mixed = ["".join(rng.choices([*lines, any_text(rng)], k=9)) for _ in range(3)]
        assert_same(tokenizer, cache, [*texts, *mixed])
    assert len(cache) > 100


def test_a_text_is_cut_around_what_is_foreign() -> None:
    cache = cache_of(trained("gpt2"))
    text = "Some words first. Then a café, and naïve words; then plain ones again, for long."
    pieces = list(cache._pieces(text))
    assert "".join(piece for piece, _ in pieces) == text
    assert pieces[0] == ("Some words first. Then a", True)
    assert pieces[-1][1]
    assert all(piece.isascii() for piece, is_own in pieces if is_own)
    assert sum(len(piece) for piece, is_own in pieces if not is_own) < len(text) // 2


def test_long_words_and_a_full_cache(monkeypatch: pytest.MonkeyPatch, rng: random.Random) -> None:
    monkeypatch.setattr(word_cache, "_MAX_WORDS", 20)
    tokenizer = trained("gpt2")
    cache = cache_of(tokenizer)
    for _ in range(20):
        assert_same(tokenizer, cache, ["x" * rng.randrange(1000) + any_text(rng) for _ in range(5)])
    assert max(map(len, cache)) <= 128


def _lowercase(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Lowercase()


def _prefix_space(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def _other_words(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = splitting(r"\w+|\W+")


def _metaspace(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()


def _dropout(tokenizer: Tokenizer) -> None:
    tokenizer.model.dropout = 0.1


def _spaced_token(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens(["two words"])


@pytest.mark.parametrize(
    "change", [_lowercase, _prefix_space, _other_words, _metaspace, _dropout, _spaced_token], ids=lambda it: it.__name__
)
def test_other_tokenizers_are_left_to_the_library(change: Any) -> None:
    tokenizer = trained("gpt2")
    cache_of(tokenizer)
    change(tokenizer)
    assert word_cache_for(tokenizer, "uint16") is None


def test_a_wide_dtype(rng: random.Random) -> None:
    tokenizer = trained("gpt2")
    cache = word_cache_for(tokenizer, "uint32")
    assert cache is not None
    [ids] = cache.encode(["some words é here"])
    assert ids.dtype == np.uint32
    assert ids.tolist() == tokenizer.encode("some words é here", add_special_tokens=False).ids
