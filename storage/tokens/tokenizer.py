"""A store's tokenizer: trained here or taken from a Hugging Face folder, its files, and its fingerprint."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ...config.errors import FoundBad, UserError
from .canaries import CANARIES
from .locations import Location
from .shards import REMEDY
from .store import TOKENIZER

END_OF_DOCUMENT = "<|endoftext|>"
MIN_VOCAB = 257
VOCAB_SIZE = 32768
_JSON, _CONFIG = "tokenizer.json", "tokenizer_config.json"
_COMPANIONS = ("special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
# What tokenizers without a configuration call the end of a document; one of them must be there, and only one.
_USUAL_ENDS = (END_OF_DOCUMENT, "</s>", "<|end_of_text|>", "<eos>", "<|end▁of▁sentence|>")


@dataclass(frozen=True)
class StoreTokenizer:
    """A tokenizer with everything that a store keeps of it."""

    tokenizer: Tokenizer
    end_of_document: int
    files: dict[str, str]
    """Text of each file for the store's tokenizer folder, by name."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, which is what a model's embedding must hold."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def unknown(self) -> int | None:
        """Id of the token that stands for what the vocabulary does not have; None if there is no such token."""
        model = json.loads(self.tokenizer.to_str())["model"]
        token = model.get("unk_token")
        if token is not None:
            number = self.tokenizer.token_to_id(token)
            return None if number is None else int(number)
        number = model.get("unk_id")  # of Unigram
        return None if number is None else int(number)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without any token around it; special tokens spelt in a text stay text."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens spelt out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def fingerprint(self) -> str:
        """SHA-256 over all that decides ids: vocabulary, merges, normaliser, pre-tokeniser, special ids, canaries."""
        parts = json.loads(self.tokenizer.to_str())
        model = {key: value for key, value in parts["model"].items() if value is not None}
        if isinstance(model.get("vocab"), dict):
            model["vocab"] = sorted(model["vocab"].items(), key=lambda item: (item[1], item[0]))
        # Older tokenizers write a merge as one string, newer ones as a pair.
        merges = model.get("merges", [])
        model["merges"] = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in merges]
        identity = {
            "model": model,
            "normalizer": parts.get("normalizer"),
            "pre_tokenizer": parts.get("pre_tokenizer"),
            "added_tokens": sorted((token["id"], token["content"]) for token in parts.get("added_tokens", [])),
            "end_of_document": self.end_of_document,
            "canaries": self.encode(CANARIES),
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def train_tokenizer(texts: Iterable[str], vocab_size: int | None = None) -> StoreTokenizer:
    """Train a byte-level BPE (of 32,768 tokens if None); the same texts give the same one. `<|endoftext|>` has id 0.

    The vocabulary comes out smaller than `vocab_size` if the texts hold too few different pairs.
    """
    vocab_size = VOCAB_SIZE if vocab_size is None else vocab_size
    if vocab_size < MIN_VOCAB:
        problem = f"{vocab_size} leaves no room for 256 bytes and {END_OF_DOCUMENT}"
        raise UserError("--vocab-size", problem, f"give at least {MIN_VOCAB}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_DOCUMENT,
        "pad_token": END_OF_DOCUMENT,
        "clean_up_tokenization_spaces": False,
    }
    files = {_JSON: tokenizer.to_str(pretty=True), _CONFIG: json.dumps(config, indent=1)}
    tokenizer.encode_special_tokens = True
    return StoreTokenizer(tokenizer, 0, files)


def take_tokenizer(path: Location) -> StoreTokenizer:
    """Read a Hugging Face tokenizer: a folder, or a tokenizer.json with what lies beside it.

    Raises UserError naming the file if there is none, it is damaged, or its end-of-document token is unknown.
    """
    file = path / _JSON if path.is_dir() else path
    text = _read(file)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        remedy = "give a tokenizer.json that the tokenizers library reads"
        raise UserError(f"--tokenizer {file}", f"not a tokenizer ({error})", remedy) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    config = _config(file.with_name(_CONFIG))
    end, end_id = _end_token(file, tokenizer, config)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    config["eos_token"] = config.get("eos_token") or end
    config["pad_token"] = config.get("pad_token") or config["eos_token"]
    files = {_JSON: text, _CONFIG: json.dumps(config, indent=1, ensure_ascii=False)}
    beside = {name: file.with_name(name) for name in _COMPANIONS}
    files.update({name: _read(place) for name, place in beside.items() if place.is_file()})
    return StoreTokenizer(tokenizer, end_id, files)


def open_tokenizer(store: Location) -> StoreTokenizer:
    """The tokenizer that a store holds. Raises FoundBad naming its file if it is damaged."""
    try:
        return take_tokenizer(store / TOKENIZER / _JSON)
    except UserError as error:
        raise FoundBad(str(store / TOKENIZER / _JSON), error.problem, REMEDY) from None


def _end_token(file: Location, tokenizer: Tokenizer, config: dict[str, Any]) -> tuple[str, int]:
    """The end-of-document token and its id: eos_token of the configuration, else the usual one in the vocabulary."""
    where = f"--tokenizer {file}"
    remedy = f"name the token that ends a document as eos_token in {file.with_name(_CONFIG)}"
    named = config.get("eos_token") or _config(file.with_name("special_tokens_map.json")).get("eos_token")
    named = named.get("content") if isinstance(named, dict) else named
    if named is None:
        usual = [token for token in _USUAL_ENDS if tokenizer.token_to_id(token) is not None]
        if len(usual) != 1:
            problem = f"its end-of-document token is not known ({len(usual)} of the usual ones are in it)"
            raise UserError(where, problem, remedy)
        named = usual[0]
    number = tokenizer.token_to_id(named) if isinstance(named, str) else None
    if number is None:
        raise UserError(where, f"eos_token {named!r} is not in its vocabulary", remedy)
    return named, number


def _config(path: Location) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(_read(path))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise UserError(f"--tokenizer {path}", "not a JSON object", "mend or remove the file")
    return config


def _read(path: Location) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        remedy = "give a folder with a tokenizer.json, or that file"
        raise UserError(f"--tokenizer {path}", "no such file", remedy) from None
    except UnicodeDecodeError:
        raise UserError(f"--tokenizer {path}", "not UTF-8 text", "give a tokenizer.json") from None
