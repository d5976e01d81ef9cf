"""Tokenizing ASCII text word by word: a byte-level BPE's words are few, so that most are looked up, not merged again.

The ids are those of the `tokenizers` library, to which all goes that is not surely the same: other kinds of tokenizers,
texts that spell an added token, and the stretches of a text around characters beyond ASCII.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, pre_tokenizers

from .canaries import CANARIES

_MAX_WORDS = 1 << 18
_MAX_LETTERS = 128
_MAX_ADDED = 32
# How GPT-2, Llama 3 and Qwen part text into words, as it stands in their tokenizer.json (GPT-2's is ByteLevel's own).
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = (_LLAMA3, _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"))
_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD")  # which leave ASCII as it is
# No word of these patterns has a space after another character: here text may be cut without changing its words.
_SAFE = re.compile(r"(?<=[!-~])(?= [A-Za-z])")
_FOREIGN = re.compile(r"[^\x00-\x7f]")


class WordCache(dict[str, bytes]):
    """Ids of words as bytes, made when they are first asked for."""

    def __init__(self, tokenizer: Tokenizer, words: "re.Pattern[str]", added: Sequence[str], dtype: str) -> None:
        """See word_cache_for."""
        super().__init__()
        self._tokenizer, self._model, self._added = tokenizer, tokenizer.model, added
        self._words, self._dtype = words, np.dtype(dtype)
        self._letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def encode(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """Token ids of each text, without any token around it; special tokens spelt in a text stay text."""
        if len(self) > _MAX_WORDS:
            self.clear()
        pieces = [list(self._pieces(text)) for text in texts]
        foreign = [piece for of_text in pieces for piece, is_own in of_text if not is_own]
        encoded = self._tokenizer.encode_batch_fast(foreign, add_special_tokens=False) if foreign else []
        others = iter([np.array(each.ids, self._dtype).tobytes() for each in encoded])
        results = []
        for of_text in pieces:
            data = b"".join(self._own(piece) if is_own else next(others) for piece, is_own in of_text)
            results.append(np.frombuffer(data, self._dtype))
        return results

    def _own(self, text: str) -> bytes:
        return b"".join(map(self.__getitem__, self._words.findall(text)))

    def __missing__(self, word: str) -> bytes:
        [(letters, _)] = self._letters.pre_tokenize_str(word)
        ids = np.array([token.id for token in self._model.tokenize(letters)], self._dtype).tobytes()
        if len(word) <= _MAX_LETTERS:
            self[word] = ids
        return ids

    def _pieces(self, text: str) -> Iterator[tuple[str, bool]]:
        """The text in pieces, and whether each is ours to tokenize."""
        if any(added in text for added in self._added):
            yield text, False
            return
        done = 0
        while not text.isascii():
            found = _FOREIGN.search(text, done)
            if found is None:
                break
            cuts = _SAFE.finditer(text, _back(found.start(), done), found.start())
            begin = max((place.start() for place in cuts), default=done)
            after = _SAFE.search(text, found.end())
            if begin > done:
                yield text[done:begin], True
            done = len(text) if after is None else after.start()
            yield text[begin:done], False
        if done < len(text):
            yield text[done:], True


def _back(place: int, least: int) -> int:
    """From where on the last place to cut is looked for; if there is none near, the stretch is longer than needed."""
    return max(least, place - _MAX_LETTERS)


def word_cache_for(tokenizer: Tokenizer, dtype: str) -> WordCache | None:
    """A cache for a tokenizer (with encode_special_tokens) whose words are surely known, else None."""
    parts = json.loads(tokenizer.to_str())
    words, model, normalizer = _words(parts.get("pre_tokenizer")), parts["model"], parts.get("normalizer")
    added = [token["content"] for token in parts.get("added_tokens", []) if not token["special"]]
    known = (
        words is not None
        and model["type"] == "BPE"
        and not any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        and (normalizer is None or normalizer["type"] in _NORMALIZERS)
        and len(added) <= _MAX_ADDED
        and not any(_SAFE.search(content) or not content for content in added)
    )
    if not known or words is None:
        return None
    cache = WordCache(tokenizer, re.compile(words, re.ASCII), added, dtype)
    expected = tokenizer.encode_batch_fast(list(CANARIES), add_special_tokens=False)
    same = [ids.tolist() for ids in cache.encode(CANARIES)] == [each.ids for each in expected]
    return cache if same else None


def _words(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The pattern of a word for ASCII text, or None."""
    if pre_tokenizer is None:
        return None
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    *splits, last = steps
    if last["type"] != "ByteLevel" or last["add_prefix_space"] or last.get("use_regex", True) is not (not splits):
        return None
    if not splits:
        return _for_ascii(_GPT2)
    split = splits[0]
    plain = split["type"] == "Split" and split["behavior"] == "Isolated" and not split["invert"]
    pattern = split["pattern"].get("Regex") if plain and len(splits) == 1 else None
    return _for_ascii(pattern) if pattern in _PATTERNS else None


def _for_ascii(pattern: str) -> str:
    """A pattern without classes that `re` does not know; in ASCII they are these letters and digits."""
    inside = re.sub(r"\[\^?[^\]]*\]", lambda found: _named(found[0]), pattern)
    return inside.replace(r"\p{L}", "[A-Za-z]").replace(r"\p{N}", "[0-9]")


def _named(text: str) -> str:
    return text.replace(r"\p{L}", "A-Za-z").replace(r"\p{N}", "0-9")
